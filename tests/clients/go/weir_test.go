// The typed contract, used from Go by a client that was generated from proto/: what every language's client relies on.
package weir

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	routerv1 "weir.test/client/gen/weir/router/v1"
	typev1 "weir.test/client/gen/weir/type/v1"
)

func router(t *testing.T) routerv1.RouterClient {
	t.Helper()
	channel, err := grpc.NewClient(os.Getenv("WEIR_ADDRESS"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = channel.Close() })
	return routerv1.NewRouterClient(channel)
}

func authorized(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Getenv("WEIR_KEY"))
}

func question(model string, text string) *routerv1.GenerateRequest {
	return &routerv1.GenerateRequest{
		Model:    model,
		Messages: []*typev1.ChatMessage{{Role: typev1.Role_ROLE_USER, Content: text}},
	}
}

type answer struct {
	started  *routerv1.Started
	text     string
	calls    []*typev1.ToolCallDelta
	finished *routerv1.Finished
}

func read(stream grpc.ServerStreamingClient[routerv1.GenerateResponse]) (answer, error) {
	var found answer
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		if started := event.GetStarted(); started != nil {
			found.started = started
		}
		found.text += event.GetDelta().GetText()
		found.calls = append(found.calls, event.GetDelta().GetToolCalls()...)
		if finished := event.GetFinished(); finished != nil {
			found.finished = finished
		}
	}
}

func generate(t *testing.T, request *routerv1.GenerateRequest) answer {
	t.Helper()
	stream, err := router(t).Generate(authorized(t, time.Minute), request)
	if err != nil {
		t.Fatal(err)
	}
	found, err := read(stream)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestGenerateCloud(t *testing.T) {
	found := generate(t, question("gpt-4", "żółw"))
	if found.text != "You said: żółw" {
		t.Errorf("text %q", found.text)
	}
	if name := found.started.GetTarget().GetName(); name != "cloud" {
		t.Errorf("target %q", name)
	}
	if reason := found.finished.GetFinishReason(); reason != typev1.FinishReason_FINISH_REASON_STOP {
		t.Errorf("finish reason %v", reason)
	}
	if usage := found.finished.GetUsage(); usage.GetInputTokens() == 0 || usage.GetOutputTokens() == 0 {
		t.Errorf("usage %v", usage)
	}
}

func TestGenerateLocal(t *testing.T) {
	request := question("local", "Say hello.")
	limit := uint32(8)
	request.Sampling = &typev1.Sampling{MaxOutputTokens: &limit}
	found := generate(t, request)
	if found.text == "" || found.started.GetTarget().GetLocality() != typev1.Locality_LOCALITY_LOCAL {
		t.Errorf("answer %v", found)
	}
	if used := found.finished.GetUsage().GetOutputTokens(); used == 0 || used > 8 {
		t.Errorf("output tokens %d", used)
	}
}

func TestGenerateTools(t *testing.T) {
	request := question("gpt-4", "Weather?")
	schema := `{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}`
	request.Tools = []*typev1.Tool{{Name: "weather", ParametersJsonSchema: schema}}
	found := generate(t, request)
	if reason := found.finished.GetFinishReason(); reason != typev1.FinishReason_FINISH_REASON_TOOL_CALLS {
		t.Errorf("finish reason %v", reason)
	}
	arguments := ""
	for _, call := range found.calls {
		arguments += call.GetArguments()
	}
	if len(found.calls) == 0 || found.calls[0].GetName() != "weather" || arguments != `{"city": "text"}` {
		t.Errorf("calls %v", found.calls)
	}
}

func TestEmbed(t *testing.T) {
	request := &routerv1.EmbedRequest{Model: "local-embed", Inputs: []string{"a weir", "a low dam", "żółw"}}
	found, err := router(t).Embed(authorized(t, time.Minute), request)
	if err != nil {
		t.Fatal(err)
	}
	if len(found.GetEmbeddings()) != 3 || len(found.GetEmbeddings()[0].GetValues()) != 384 {
		t.Errorf("%d embeddings", len(found.GetEmbeddings()))
	}
	if found.GetTarget().GetName() != "local-embed" || found.GetUsage().GetInputTokens() == 0 {
		t.Errorf("target %v, usage %v", found.GetTarget(), found.GetUsage())
	}
}

func TestListModels(t *testing.T) {
	found, err := router(t).ListModels(authorized(t, time.Minute), &routerv1.ListModelsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	tasks := map[string]routerv1.Task{}
	for _, model := range found.GetModels() {
		tasks[model.GetName()] = model.GetTask()
	}
	if tasks["gpt-4"] != routerv1.Task_TASK_CHAT || tasks["local-embed"] != routerv1.Task_TASK_EMBED {
		t.Errorf("models %v", tasks)
	}
}

func TestDeadline(t *testing.T) {
	begun := time.Now()
	stream, err := router(t).Generate(authorized(t, 500*time.Millisecond), question("slow", "x"))
	if err == nil {
		_, err = read(stream)
	}
	if status.Code(err) != codes.DeadlineExceeded || time.Since(begun) > 3*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

func TestCancellation(t *testing.T) {
	ctx, cancel := context.WithCancel(authorized(t, time.Minute))
	stream, err := router(t).Generate(ctx, question("trickle", "x"))
	if err != nil {
		t.Fatal(err)
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if event.GetDelta() != nil {
			break
		}
	}
	cancel()
	if _, err := read(stream); status.Code(err) != codes.Canceled {
		t.Errorf("%v", err)
	}
}

func details[T any](t *testing.T, err error) T {
	t.Helper()
	for _, detail := range status.Convert(err).Details() {
		if found, ok := detail.(T); ok {
			return found
		}
	}
	var none T
	t.Fatalf("no %T in %v", none, err)
	return none
}

func refused(t *testing.T, ctx context.Context, request *routerv1.GenerateRequest, code codes.Code, reason string) error {
	t.Helper()
	stream, err := router(t).Generate(ctx, request)
	if err == nil {
		_, err = read(stream)
	}
	if status.Code(err) != code {
		t.Fatalf("%v", err)
	}
	info := details[*errdetails.ErrorInfo](t, err)
	if info.GetReason() != reason || info.GetDomain() != "weir" {
		t.Errorf("%v", info)
	}
	return err
}

func TestUnknownModel(t *testing.T) {
	refused(t, authorized(t, time.Minute), question("gpt-99", "x"), codes.NotFound, "MODEL_NOT_FOUND")
}

func TestNoKey(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	refused(t, ctx, question("gpt-4", "x"), codes.Unauthenticated, "KEY_MISSING")
}

func TestBadRequest(t *testing.T) {
	request := &routerv1.GenerateRequest{Model: "gpt-4"}
	err := refused(t, authorized(t, time.Minute), request, codes.InvalidArgument, "INVALID_REQUEST")
	violations := details[*errdetails.BadRequest](t, err).GetFieldViolations()
	if len(violations) != 1 || violations[0].GetField() != "messages" {
		t.Errorf("%v", violations)
	}
}

func TestRateLimited(t *testing.T) {
	err := refused(t, authorized(t, time.Minute), question("limited", "x"), codes.ResourceExhausted, "RATE_LIMITED")
	if wait := details[*errdetails.RetryInfo](t, err).GetRetryDelay().AsDuration(); wait != 7*time.Second {
		t.Errorf("retry delay %v", wait)
	}
	if subject := details[*errdetails.QuotaFailure](t, err).GetViolations(); len(subject) == 0 {
		t.Error("no violation")
	}
}
