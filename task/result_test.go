package task

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	_ "github.com/gelery/gelery/backends/memory"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
	_ "github.com/gelery/gelery/transport/memory"
)

// dialMemory connects to a broker and a backend of the test's own.
func dialMemory(t *testing.T) (context.Context, *Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	name := strings.ReplaceAll(strings.ToLower(t.Name()), "/", "-")
	client, err := Dial(ctx, Config{Broker: "memory://" + name, Backend: "memory://" + name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return ctx, client
}

func store(ctx context.Context, t *testing.T, c *Client, meta protocol.ResultMeta) {
	t.Helper()
	if err := c.Backend().Store(ctx, []*protocol.ResultMeta{&meta}); err != nil {
		t.Fatal(err)
	}
}

// runOne receives one message, runs it with the handler and stores what came of it: a worker in its simplest form.
func runOne(ctx context.Context, c *Client, d Definition) error {
	consumer, err := c.Transport().Consume(ctx, transport.ConsumeOptions{Queues: []transport.Queue{{Name: "celery"}}})
	if err != nil {
		return err
	}
	deliveries, err := consumer.Receive(ctx, 1)
	if err != nil {
		return errors.Join(err, consumer.Close(ctx))
	}
	r, err := protocol.DecodeRequest(deliveries[0].Message, serialization.Accept{})
	if err != nil {
		return errors.Join(err, consumer.Close(ctx))
	}
	meta := &protocol.ResultMeta{TaskID: r.ID, Status: protocol.Success}
	info := &Info{Request: r, Report: func(ctx context.Context, s protocol.State, v any) error {
		return c.Backend().Store(ctx, []*protocol.ResultMeta{{TaskID: r.ID, Status: s, Result: v}})
	}}
	if meta.Result, err = d.Handler(NewContext(ctx, info), r); err != nil {
		meta.Status, meta.Exception, meta.Traceback = protocol.Failure, ExceptionOf(err), Traceback(err, nil)
	}
	meta.Children = info.Children()
	err = c.Backend().Store(ctx, []*protocol.ResultMeta{meta})
	_, settled := consumer.Settle(ctx, []transport.Settlement{{Delivery: &deliveries[0], Verdict: transport.Ack}})
	return errors.Join(err, settled, consumer.Close(ctx))
}

func TestSendRunGet(t *testing.T) {
	t.Parallel()
	ctx, client := dialMemory(t)
	d := add.Definition(func(ctx context.Context, a addArgs) (int, error) {
		if err := Progress(ctx, map[string]any{"done": 1}); err != nil {
			return 0, err
		}
		_, err := client.Send(ctx, "child", nil, nil, ID("child-1"), Queue("other"))
		return a.X + a.Y, err
	})
	res, err := add.Send(ctx, client, addArgs{2, 3})
	if err != nil {
		t.Fatal(err)
	}
	if state, err := res.State(ctx); state != protocol.Pending || err != nil {
		t.Errorf("state %s, %v", state, err)
	}
	done := make(chan error, 1)
	go func() { done <- runOne(ctx, client, d) }()
	if sum, err := res.Get(ctx); sum != 5 || err != nil {
		t.Errorf("got %d, %v", sum, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	children, err := res.Children(ctx)
	if err != nil || len(children) != 1 || children[0].ID() != "child-1" {
		t.Errorf("children %v, %v", children, err)
	}
	if ready, err := res.Ready(ctx); !ready || err != nil {
		t.Errorf("ready %v, %v", ready, err)
	}
	if info, err := res.Info(ctx); info != int64(5) || err != nil {
		t.Errorf("info %v, %v", info, err)
	}
	if err := res.Forget(ctx); err != nil {
		t.Error(err)
	}
	if state, err := res.State(ctx); state != protocol.Pending || err != nil {
		t.Errorf("state %s, %v", state, err)
	}
}

func TestGetFailure(t *testing.T) {
	t.Parallel()
	ctx, client := dialMemory(t)
	d := add.Definition(func(context.Context, addArgs) (int, error) {
		return 0, AsPython(errors.New("declined"), "shop.errors", "CardDeclined", 7, "no money")
	})
	res, err := add.Send(ctx, client, addArgs{})
	if err != nil {
		t.Fatal(err)
	}
	if err := runOne(ctx, client, d); err != nil {
		t.Fatal(err)
	}
	_, err = res.Get(ctx)
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, PyError("shop.errors.CardDeclined")) {
		t.Fatalf("got %v", err)
	}
	want := &Error{
		Type: "CardDeclined", Module: "shop.errors", Args: []any{int64(7), "no money"}, Message: "(7, 'no money')",
		Traceback: "Traceback (most recent call last):\nshop.errors.CardDeclined: (7, 'no money')\n",
		TaskID:    res.ID(), State: protocol.Failure,
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Error(diff)
	}
	if info, err := res.Info(ctx); err != nil || fmt.Sprint(info) != e.Error() {
		t.Errorf("info %v, %v", info, err)
	}
}

func TestGetOther(t *testing.T) {
	t.Parallel()
	ctx, client := dialMemory(t)
	store(ctx, t, client, protocol.ResultMeta{TaskID: "revoked", Status: protocol.Revoked,
		Exception: &protocol.Exception{Type: "TaskRevokedError", Module: "celery.exceptions", Args: []any{"expired"}}})
	if _, err := client.Result("revoked").Get(ctx); !errors.Is(err, ErrRevoked) || !errors.Is(err, PyError("celery.exceptions.TaskError")) {
		t.Errorf("got %v", err)
	}
	store(ctx, t, client, protocol.ResultMeta{TaskID: "text", Status: protocol.Success, Result: "five", ParentID: "root"})
	if _, err := ResultOf[int](client, "text").Get(ctx); err == nil || !strings.Contains(err.Error(), `task text: expected int, got str "five"`) {
		t.Errorf("got %v", err)
	}
	if parent, err := client.Result("text").Parent(ctx); err != nil || parent.ID() != "root" {
		t.Errorf("parent %v, %v", parent, err)
	}
	if parent, err := client.Result("revoked").Parent(ctx); err != nil || parent != nil {
		t.Errorf("parent %v, %v", parent, err)
	}
	store(ctx, t, client, protocol.ResultMeta{TaskID: "none", Status: protocol.Success})
	if _, err := ResultOf[NoResult](client, "none").Get(ctx); err != nil {
		t.Error(err)
	}
	if v, err := client.Result("none").Get(ctx); v != nil || err != nil {
		t.Errorf("got %v, %v", v, err)
	}
	store(ctx, t, client, protocol.ResultMeta{TaskID: "group", Status: protocol.Success, Children: []protocol.ResultTuple{
		{ID: "g", Children: []protocol.ResultTuple{{ID: "a"}, {ID: "b"}}}, {ID: "c"},
	}})
	children, err := client.Result("group").Children(ctx)
	ids := ""
	for _, c := range children {
		ids += c.ID()
		if g, ok := c.Group(); ok {
			ids += fmt.Sprint(len(g.Results()))
		}
	}
	if ids != "g2c" || err != nil {
		t.Errorf("children %s, %v", ids, err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := client.Result("never").Get(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	ignored, err := client.Send(ctx, "t", nil, nil, IgnoreResult(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ignored.Get(ctx); !errors.Is(err, ErrResultIgnored) {
		t.Errorf("got %v", err)
	}
}

// TestWatch sees a state that stays until the next one is stored.
func TestWatch(t *testing.T) {
	t.Parallel()
	ctx, client := dialMemory(t)
	var states []protocol.State
	for meta, err := range client.Result("id-1").Watch(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, meta.Status)
		switch meta.Status {
		case protocol.Pending:
			store(ctx, t, client, protocol.ResultMeta{TaskID: "id-1", Status: StateProgress, Result: int64(1)})
		case StateProgress:
			store(ctx, t, client, protocol.ResultMeta{TaskID: "id-1", Status: protocol.Success})
		}
	}
	if diff := cmp.Diff([]protocol.State{protocol.Pending, StateProgress, protocol.Success}, states); diff != "" {
		t.Error(diff)
	}
}

func TestNoBackend(t *testing.T) {
	t.Parallel()
	client, _ := probeClient(t, Config{})
	r := client.Result("id")
	_, get := r.Get(t.Context())
	_, state := r.State(t.Context())
	_, ready := r.Ready(t.Context())
	_, info := r.Info(t.Context())
	_, children := r.Children(t.Context())
	_, parent := r.Parent(t.Context())
	for i, err := range []error{get, state, ready, info, children, parent, r.Forget(t.Context())} {
		if !errors.Is(err, ErrNoBackend) {
			t.Errorf("%d: got %v", i, err)
		}
	}
}

func TestDialRefuses(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]Config{
		"broker":         {Broker: "gopher://x"},
		"result backend": {Broker: "memory://dialrefuses", Backend: "gopher://x"},
		"Protocol":       {Broker: "memory://dialrefuses", Protocol: 9},
	} {
		if _, err := Dial(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}
