package task

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/gelery/gelery/backends"
	_ "github.com/gelery/gelery/backends/rpc"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

// dialRPC connects to a broker of the test's own, over which results come too.
func dialRPC(t *testing.T, c Config) (context.Context, *Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	c.Broker, c.Backend = "memory://"+protocol.NewID(), "rpc://"
	client, err := Dial(ctx, c)
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

// sent receives the messages of the calls from the default queue.
func sent(ctx context.Context, t *testing.T, c *Client, n int) []*protocol.Request {
	t.Helper()
	consumer, err := c.Transport().Consume(ctx, transport.ConsumeOptions{Queues: []transport.Queue{{Name: "celery"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = consumer.Close(ctx) }()
	var requests []*protocol.Request
	for len(requests) < n {
		deliveries, err := consumer.Receive(ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		for i := range deliveries {
			r, err := protocol.DecodeRequest(deliveries[i].Message, serialization.Accept{})
			if err != nil {
				t.Fatal(err)
			}
			requests = append(requests, r)
		}
	}
	return requests
}

// answer stores a SUCCESS for a request, as its worker does.
func answer(r *protocol.Request, result any) *protocol.ResultMeta {
	return &protocol.ResultMeta{TaskID: r.ID, Status: protocol.Success, Result: result, ReplyTo: r.Properties.ReplyTo,
		CorrelationID: r.Properties.CorrelationID}
}

func TestRPCReplyTo(t *testing.T) {
	t.Parallel()
	ctx, client := dialRPC(t, Config{})
	results, err := client.SendBatch(ctx, []Call{
		{Name: "one"},
		{Name: "ignored", Options: []SendOption{IgnoreResult(true)}},
		{Name: "elsewhere", Options: []SendOption{ReplyTo("their-queue")}},
		{Name: "two"},
	})
	if err != nil {
		t.Fatal(err)
	}
	three, err := client.Send(ctx, "three", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	results = append(results, three)
	requests := sent(ctx, t, client, 5)
	ours := requests[0].Properties.ReplyTo
	if ours == "" || ours == client.replyTo {
		t.Errorf("the reply queue is %q", ours)
	}
	for i, want := range []string{ours, client.replyTo, "their-queue", ours, ours} {
		if got := requests[i].Properties.ReplyTo; got != want {
			t.Errorf("task %s: reply_to %q, want %q", requests[i].Task, got, want)
		}
	}
	var batch []*protocol.ResultMeta
	for i, r := range requests {
		batch = append(batch, answer(r, int64(i)))
	}
	slices.Reverse(batch)
	if err := client.Backend().Store(ctx, batch); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 3, 4} {
		if got, err := results[i].Get(ctx); err != nil || got != int64(i) {
			t.Errorf("result %d: %v, %v", i, got, err)
		}
		if state, err := results[i].State(ctx); err != nil || state != protocol.Success {
			t.Errorf("state %d: %v, %v", i, state, err)
		}
	}
	if _, err := results[1].Get(ctx); !errors.Is(err, ErrResultIgnored) {
		t.Errorf("ignored: %v", err)
	}
	if _, err := results[2].Get(ctx); !errors.Is(err, backends.ErrUnexpected) {
		t.Errorf("elsewhere: %v", err)
	}
}

// TestRPCBeforePublish: what cannot be awaited is not sent.
func TestRPCBeforePublish(t *testing.T) {
	t.Parallel()
	ctx, client := dialRPC(t, Config{})
	if err := client.Backend().Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Send(ctx, "one", nil, nil); err == nil {
		t.Error("sent without a way back")
	}
	if _, err := client.Send(ctx, "two", nil, nil, IgnoreResult(true)); err != nil {
		t.Errorf("a task without a result needs no way back: %v", err)
	}
	if requests := sent(ctx, t, client, 1); requests[0].Task != "two" {
		t.Errorf("%s was sent", requests[0].Task)
	}
}

func TestRPCPersistent(t *testing.T) {
	t.Parallel()
	for persistent, mode := range map[bool]int{false: 1, true: 2} {
		ctx, client := dialRPC(t, Config{ResultPersistent: persistent})
		meta := &protocol.ResultMeta{TaskID: "a", Status: protocol.Success, ReplyTo: "reply"}
		if err := client.Backend().Store(ctx, []*protocol.ResultMeta{meta}); err != nil {
			t.Fatal(err)
		}
		consumer, err := client.Transport().Consume(ctx, transport.ConsumeOptions{Queues: []transport.Queue{{Name: "reply", Unbound: true}}})
		if err != nil {
			t.Fatal(err)
		}
		deliveries, err := consumer.Receive(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		if got := deliveries[0].Message.Properties.DeliveryMode; got != mode {
			t.Errorf("persistent %v: delivery mode %d", persistent, got)
		}
		if err := consumer.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}
