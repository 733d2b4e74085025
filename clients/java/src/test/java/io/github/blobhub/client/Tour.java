package io.github.blobhub.client;

import io.github.blobhub.v1.BlobServiceGrpc;
import io.github.blobhub.v1.CheckDefinitionRequest;
import io.github.blobhub.v1.CommitRevisionRequest;
import io.github.blobhub.v1.CreateBlobRequest;
import io.github.blobhub.v1.CreateOrganizationRequest;
import io.github.blobhub.v1.CreateSessionRequest;
import io.github.blobhub.v1.DefinitionServiceGrpc;
import io.github.blobhub.v1.Event;
import io.github.blobhub.v1.ExecutionSpec;
import io.github.blobhub.v1.GetSessionObjectRequest;
import io.github.blobhub.v1.OrganizationServiceGrpc;
import io.github.blobhub.v1.PublishRevisionRequest;
import io.github.blobhub.v1.PutDefinitionRequest;
import io.github.blobhub.v1.RevisionServiceGrpc;
import io.github.blobhub.v1.RunExecutionRequest;
import io.github.blobhub.v1.SessionObjectServiceGrpc;
import io.github.blobhub.v1.SessionServiceGrpc;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

/** The tour: a workflow from nothing, run and watched. Arguments are the server's address and a file with a definition. */
public final class Tour {
  private Tour() {}

  /** Prints a line for each step, and one for each event. */
  public static void main(String[] arguments) throws IOException {
    String organization = System.getenv().getOrDefault("ORGANIZATION", "acme");
    try (var hub = BlobHub.connect(BlobHub.Config.of(arguments[0], System.getenv("KEY")))) {
      String session = prepare(hub, organization, Files.readString(Path.of(arguments[1])));
      var spec =
          ExecutionSpec.newBuilder()
              .setDefinition("document_summary")
              .addInputData(Values.input("document", "# Title\nSome words."))
              .build();
      for (Event event : hub.run(RunExecutionRequest.newBuilder().setSession(session).setSpec(spec).build())) {
        String component = event.getProcessor().getProcessorId();
        System.out.printf("event %d %s %s%n", event.getExecutionSequence(), event.getType(), component.isEmpty() ? "-" : component);
      }
      var found =
          SessionObjectServiceGrpc.newBlockingStub(hub)
              .getSessionObject(GetSessionObjectRequest.newBuilder().setSession(session).setAlias("summary").build())
              .getSessionObject();
      var summary = (Map<?, ?>) Values.plain(found.getValue(), found.getValueJson());
      System.out.printf("summary %s %s %s%n", summary.get("kind"), summary.get("sections"), summary.get("beginning"));
    }
  }

  /** Makes an organization, a workflow blob, a published revision of it, and a session on that; answers the session's id. */
  private static String prepare(BlobHub hub, String organization, String document) {
    OrganizationServiceGrpc.newBlockingStub(hub)
        .createOrganization(CreateOrganizationRequest.newBuilder().setAlias(organization).build());
    var create =
        CreateBlobRequest.newBuilder().setOrganization(organization).setAlias("pipeline").setType("blobhub.compute.workflow");
    var blob = BlobServiceGrpc.newBlockingStub(hub).createBlob(create.build()).getBlob();
    System.out.printf("created %s %s%n", blob.getType(), blob.getAlias());

    String draft = organization + "/pipeline@draft";
    var definitions = DefinitionServiceGrpc.newBlockingStub(hub);
    definitions.putDefinition(
        PutDefinitionRequest.newBuilder().setRevision(draft).setAlias("document_summary").setDocument(document).build());
    var checked =
        definitions.checkDefinition(
            CheckDefinitionRequest.newBuilder().setRevision(draft).setDefinition("document_summary").build());
    if (!checked.getRunnable()) {
      throw new IllegalStateException("the definition cannot run: " + checked.getProblemsList());
    }
    System.out.println("uploaded document_summary, which can run");

    var revisions = RevisionServiceGrpc.newBlockingStub(hub);
    var commit =
        revisions.commitRevision(
            CommitRevisionRequest.newBuilder().setRevision(draft).setComment("Summarise a document").build());
    var snapshot =
        revisions.publishRevision(
            PublishRevisionRequest.newBuilder().setRevision(commit.getRevision().getId()).setLabel("first").build());
    System.out.println("published snapshot " + snapshot.getRevision().getNumber());

    return SessionServiceGrpc.newBlockingStub(hub)
        .createSession(CreateSessionRequest.newBuilder().setRevision(organization + "/pipeline@1").build())
        .getSession()
        .getId();
  }
}
