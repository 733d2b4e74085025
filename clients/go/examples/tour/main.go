// The tour: a workflow from nothing, run and watched.
//
//	KEY=bhk_… go run ./examples/tour 127.0.0.1:7443 ../../demo/document_summary.json
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"

	"github.com/blobhub/blobhub/clients/go"
	pb "github.com/blobhub/blobhub/clients/go/blobhub/v1"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: tour ADDRESS DEFINITION")
	}
	hub, err := blobhub.Connect(blobhub.Config{Address: os.Args[1], Key: os.Getenv("KEY")})
	if err == nil {
		defer hub.Close()
		err = tour(context.Background(), hub, os.Args[2])
	}
	if err != nil {
		log.Fatal(err)
	}
}

func tour(ctx context.Context, hub *blobhub.Client, path string) error {
	organization := cmp.Or(os.Getenv("ORGANIZATION"), "acme")
	session, err := prepare(ctx, hub, organization, path)
	if err != nil {
		return err
	}

	document, err := blobhub.Input("document", "# Title\nSome words.")
	if err != nil {
		return err
	}
	spec := &pb.ExecutionSpec{Definition: "document_summary", InputData: []*pb.ExecutionInput{document}}
	for event, err := range hub.Run(ctx, &pb.RunExecutionRequest{Session: session, Spec: spec}) {
		if err != nil {
			return err
		}
		fmt.Println("event", event.GetExecutionSequence(), event.GetType(), cmp.Or(event.GetProcessor().GetProcessorId(), "-"))
	}

	found, err := hub.GetSessionObject(ctx, &pb.GetSessionObjectRequest{Session: session, Alias: "summary"})
	if err != nil {
		return err
	}
	object := found.GetSessionObject()
	value, err := blobhub.Plain(object.GetValue(), object.GetValueJson())
	if err != nil {
		return err
	}
	summary := value.(map[string]any)
	fmt.Println("summary", summary["kind"], summary["sections"], summary["beginning"])
	return nil
}

// prepare makes an organization, a workflow blob, a published revision of it, and a session on that; it answers the session's id.
func prepare(ctx context.Context, hub *blobhub.Client, organization, path string) (string, error) {
	document, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if _, err := hub.CreateOrganization(ctx, &pb.CreateOrganizationRequest{Alias: organization}); err != nil {
		return "", err
	}
	blob := &pb.CreateBlobRequest{Organization: organization, Alias: "pipeline", Type: "blobhub.compute.workflow"}
	made, err := hub.CreateBlob(ctx, blob)
	if err != nil {
		return "", err
	}
	fmt.Println("created", made.GetBlob().GetType(), made.GetBlob().GetAlias())

	draft := organization + "/pipeline@draft"
	definition := &pb.PutDefinitionRequest{
		Revision: draft, Alias: "document_summary", Body: &pb.PutDefinitionRequest_Document{Document: string(document)},
	}
	if _, err := hub.PutDefinition(ctx, definition); err != nil {
		return "", err
	}
	check := &pb.CheckDefinitionRequest{
		Revision: draft, Subject: &pb.CheckDefinitionRequest_Definition{Definition: "document_summary"},
	}
	checked, err := hub.CheckDefinition(ctx, check)
	if err != nil {
		return "", err
	}
	if !checked.GetRunnable() {
		return "", fmt.Errorf("the definition cannot run: %v", checked.GetProblems())
	}
	fmt.Println("uploaded document_summary, which can run")

	commit, err := hub.CommitRevision(ctx, &pb.CommitRevisionRequest{Revision: draft, Comment: "Summarise a document"})
	if err != nil {
		return "", err
	}
	snapshot, err := hub.PublishRevision(ctx, &pb.PublishRevisionRequest{Revision: commit.GetRevision().GetId(), Label: "first"})
	if err != nil {
		return "", err
	}
	fmt.Println("published snapshot", snapshot.GetRevision().GetNumber())

	session, err := hub.CreateSession(ctx, &pb.CreateSessionRequest{Revision: organization + "/pipeline@1"})
	return session.GetSession().GetId(), err
}
