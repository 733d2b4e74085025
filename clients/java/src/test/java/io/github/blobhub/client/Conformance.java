package io.github.blobhub.client;

import com.google.gson.Gson;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import io.github.blobhub.v1.AuditEntry;
import io.github.blobhub.v1.AuditServiceGrpc;
import io.github.blobhub.v1.Blob;
import io.github.blobhub.v1.BlobServiceGrpc;
import io.github.blobhub.v1.CloseSessionRequest;
import io.github.blobhub.v1.CreateBlobRequest;
import io.github.blobhub.v1.CreateOrganizationRequest;
import io.github.blobhub.v1.CreateSessionRequest;
import io.github.blobhub.v1.ErrorReason;
import io.github.blobhub.v1.Event;
import io.github.blobhub.v1.ExecutionServiceGrpc;
import io.github.blobhub.v1.ExecutionSpec;
import io.github.blobhub.v1.GetBlobRequest;
import io.github.blobhub.v1.ListBlobsRequest;
import io.github.blobhub.v1.ListBlobsResponse;
import io.github.blobhub.v1.ListExecutionsRequest;
import io.github.blobhub.v1.OrganizationServiceGrpc;
import io.github.blobhub.v1.SessionServiceGrpc;
import io.github.blobhub.v1.StartExecutionRequest;
import io.github.blobhub.v1.UpdateBlobRequest;
import io.github.blobhub.v1.WatchAuditEntriesRequest;
import io.github.blobhub.v1.WatchAuditEntriesResponse;
import io.github.blobhub.v1.WatchSessionRequest;
import io.github.blobhub.v1.WatchSessionResponse;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.math.BigInteger;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.UUID;

/** What tests/conformance asks of the client; `make clients` runs it. With the argument {@code golden}, messages alone. */
public final class Conformance {
  private static final String WORKFLOW = "blobhub.compute.workflow";

  private Conformance() {}

  /** Runs the tests; ends with an exception where one fails. */
  public static void main(String[] arguments) throws Exception {
    messages(Path.of(setting("GOLDEN")));
    if (arguments.length > 0) {
      return;
    }
    pages();
    reasons();
    lostCalls();
    cutWatch();
  }

  private static String setting(String name) {
    return System.getenv("CONFORMANCE_" + name);
  }

  private static BlobHub hub(String address) {
    return BlobHub.connect(BlobHub.Config.of(setting(address), setting("KEY")));
  }

  private static void require(boolean holds, Object said) {
    if (!holds) {
      throw new AssertionError(said);
    }
  }

  private static void pages() {
    try (var hub = hub("ADDRESS")) {
      var blobs = BlobServiceGrpc.newBlockingStub(hub);
      var request = ListBlobsRequest.newBuilder().setOrganization(setting("SHARED")).setPageSize(37).build();
      Set<String> ids = new HashSet<>();
      for (Blob blob : BlobHub.page(blobs::listBlobs, request, ListBlobsResponse::getBlobsList)) {
        require(ids.add(blob.getId()), blob);
      }
      require(ids.size() == Integer.parseInt(setting("ITEMS")), ids.size());
    }
  }

  private static Failure refused(Runnable call, Status.Code code, ErrorReason reason, String said) {
    try {
      call.run();
    } catch (StatusRuntimeException exception) {
      Failure failure = Failure.of(exception);
      require(failure.code() == code && failure.errorReason() == reason && failure.toString().contains(said), failure);
      return failure;
    }
    throw new AssertionError(reason + " was expected");
  }

  private static void reasons() {
    String organization = setting("ORGANIZATION") + "-errors";
    try (var hub = hub("ADDRESS"); var nobody = BlobHub.connect(BlobHub.Config.of(setting("ADDRESS"), null))) {
      OrganizationServiceGrpc.newBlockingStub(hub)
          .createOrganization(CreateOrganizationRequest.newBuilder().setAlias(organization).build());
      var blobs = BlobServiceGrpc.newBlockingStub(hub);
      var create = CreateBlobRequest.newBuilder().setOrganization(organization).setType(WORKFLOW).setAlias("pipeline");
      create.setRequestId(UUID.randomUUID().toString());
      Blob blob = blobs.createBlob(create.build()).getBlob();
      var missing = GetBlobRequest.newBuilder().setBlob(organization + "/nothing").build();
      refused(() -> blobs.getBlob(missing), Status.Code.NOT_FOUND, ErrorReason.ERROR_REASON_NOT_FOUND, missing.getBlob());
      var wrong = ListBlobsRequest.newBuilder().setOrganization(organization).setPageSize(-1).build();
      refused(
          () -> blobs.listBlobs(wrong), Status.Code.INVALID_ARGUMENT, ErrorReason.ERROR_REASON_INVALID_REQUEST, "page_size");
      var stale = UpdateBlobRequest.newBuilder().setBlob(blob.getId()).setEtag("stale").build();
      var failure =
          refused(() -> blobs.updateBlob(stale), Status.Code.ABORTED, ErrorReason.ERROR_REASON_STALE_ETAG, "STALE_ETAG");
      require(blob.getEtag().equals(failure.metadata().get("etag")), failure);
      create.setAlias("another");
      refused(
          () -> blobs.createBlob(create.build()),
          Status.Code.ALREADY_EXISTS,
          ErrorReason.ERROR_REASON_REQUEST_ID_REUSED,
          "request id");
      var unseen = GetBlobRequest.newBuilder().setBlob(blob.getId()).build();
      refused(
          () -> BlobServiceGrpc.newBlockingStub(nobody).getBlob(unseen),
          Status.Code.UNAUTHENTICATED,
          ErrorReason.ERROR_REASON_UNAUTHENTICATED,
          "no key came with this call");
    }
  }

  private static String open(BlobHub hub) {
    String revision = setting("SHARED") + "/" + setting("BLOB") + "@draft";
    var request = CreateSessionRequest.newBuilder().setRevision(revision).build();
    return SessionServiceGrpc.newBlockingStub(hub).createSession(request).getSession().getId();
  }

  private static void lostCalls() {
    String organization = setting("ORGANIZATION") + "-losing";
    try (var hub = hub("LOSING")) {
      OrganizationServiceGrpc.newBlockingStub(hub)
          .createOrganization(CreateOrganizationRequest.newBuilder().setAlias(organization).build());
      var create = CreateBlobRequest.newBuilder().setOrganization(organization).setType(WORKFLOW);
      for (int number = 0; number < 5; number++) {
        BlobServiceGrpc.newBlockingStub(hub).createBlob(create.setAlias("blob-" + number).build());
      }
      String session = open(hub);
      BigInteger given = BigInteger.ONE.shiftLeft(64).subtract(BigInteger.ONE);
      Object result = hub.result(session, "echo", Map.of("given", given));
      require(given.equals(result), result);
      Map<String, Integer> changes = new TreeMap<>();
      var request = WatchAuditEntriesRequest.newBuilder().setParent(organization).setReplayOnly(true).build();
      var audit = AuditServiceGrpc.newBlockingStub(hub);
      for (AuditEntry entry : hub.watch(audit::watchAuditEntries, request, WatchAuditEntriesResponse::getEntriesList)) {
        changes.merge(entry.getMethod().replaceAll(".*/", ""), 1, Integer::sum);
      }
      require(changes.equals(Map.of("CreateOrganization", 1, "CreateBlob", 5)), changes);
      var list = ListExecutionsRequest.newBuilder().setBlob(setting("SHARED") + "/" + setting("BLOB")).setSession(session);
      var made = ExecutionServiceGrpc.newBlockingStub(hub).listExecutions(list.build());
      require(made.getExecutionsCount() == 1, made);
    }
  }

  private static void start(BlobHub hub, String session) {
    var request =
        StartExecutionRequest.newBuilder()
            .setSession(session)
            .setSpec(ExecutionSpec.newBuilder().setDefinition("loud"))
            .build();
    for (int number = 0; number < 3; number++) {
      ExecutionServiceGrpc.newBlockingStub(hub).startExecution(request);
    }
  }

  private static void cutWatch() {
    try (var direct = hub("ADDRESS"); var cut = hub("CUTTING")) {
      String session = open(direct);
      start(direct, session);
      List<String> seen = new ArrayList<>();
      int ended = 0;
      var request = WatchSessionRequest.newBuilder().setSession(session).build();
      var sessions = SessionServiceGrpc.newBlockingStub(cut);
      for (Event event : cut.watch(sessions::watchSession, request, WatchSessionResponse::getEventsList)) {
        seen.add(event.getId());
        ended += event.hasFlowExited() ? 1 : 0;
        if (event.hasFlowExited() && ended == 2) {
          start(direct, session);
        } else if (event.hasFlowExited() && ended == 6) {
          SessionServiceGrpc.newBlockingStub(direct)
              .closeSession(CloseSessionRequest.newBuilder().setSession(session).build());
        }
      }
      List<String> all = new ArrayList<>();
      var replay = request.toBuilder().setReplayOnly(true).build();
      var again = SessionServiceGrpc.newBlockingStub(direct);
      for (Event event : direct.watch(again::watchSession, replay, WatchSessionResponse::getEventsList)) {
        all.add(event.getId());
      }
      require(seen.equals(all), seen.size() + " events were seen, of " + all.size());
    }
  }

  /** A line of a file of messages. */
  private static final class Golden {
    String type;
    String wire;
    String json;
  }

  private static void messages(Path folder) throws Exception {
    List<Path> files = new ArrayList<>();
    try (DirectoryStream<Path> found = Files.newDirectoryStream(folder, "*.jsonl")) {
      found.forEach(files::add);
    }
    var gson = new Gson();
    for (Path file : files) {
      List<String> written = new ArrayList<>();
      for (String line : Files.readAllLines(file)) {
        Golden golden = gson.fromJson(line, Golden.class);
        Message empty = empty(golden.type);
        Message wire = empty.newBuilderForType().mergeFrom(Base64.getDecoder().decode(golden.wire)).build();
        Message.Builder text = empty.newBuilderForType();
        JsonFormat.parser().usingTypeRegistry(types()).merge(golden.json, text);
        require(wire.equals(text.build()), file + ": " + golden.type + ": " + wire + " is not " + text);
        golden.wire = Base64.getEncoder().encodeToString(wire.toByteArray());
        golden.json = JsonFormat.printer().usingTypeRegistry(types()).omittingInsignificantWhitespace().print(text);
        written.add(gson.toJson(golden));
      }
      if (file.endsWith("python.jsonl")) {
        Files.write(folder.resolve("java.jsonl"), written);
      }
    }
  }

  private static JsonFormat.TypeRegistry types() {
    return JsonFormat.TypeRegistry.newBuilder()
        .add(io.github.blobhub.v1.ModelShape.getDescriptor())
        .build();
  }

  /** A message of a type of the contract. Its class is looked up by its name. */
  private static Message empty(String type) throws ReflectiveOperationException {
    String name = "io.github.blobhub.v1." + type.substring("blobhub.v1.".length()).replace('.', '$');
    return (Message) Class.forName(name).getMethod("getDefaultInstance").invoke(null);
  }
}
