package rpc

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/backends/backendstest"
	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"

	_ "github.com/gelery/gelery/transport/memory"
	_ "github.com/gelery/gelery/transport/rabbitmq"
	_ "github.com/gelery/gelery/transport/redis"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// brokers are the transports results travel over here. url starts a broker for one test.
var brokers = []struct {
	name string
	url  func(t testing.TB) string
}{
	{"memory", func(testing.TB) string { return "memory://" + protocol.NewID() }}, // a new one also for the next round of -count
	{"redis", func(t testing.TB) string { return testservice.Redis(t) }},
	{"rabbitmq", func(t testing.TB) string { return testservice.RabbitMQ(t).URL }},
}

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func connect(t testing.TB, url string) transport.Transport {
	t.Helper()
	tr, err := transport.Open(deadline(t), url, transport.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close(context.WithoutCancel(t.Context())) })
	return tr
}

func open(t testing.TB, tr transport.Transport, o backends.Options) *Backend {
	t.Helper()
	o.Broker = tr
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	b, err := backends.Open(t.Context(), "rpc://", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b.(*Backend)
}

// each runs a test over every transport.
func each(t *testing.T, test func(t *testing.T, url string)) {
	t.Helper()
	for _, broker := range brokers {
		t.Run(broker.name, func(t *testing.T) {
			t.Parallel()
			test(t, broker.url(t))
		})
	}
}

func expect(t testing.TB, b *Backend, ids ...string) (replyTo string) {
	t.Helper()
	replyTo, err := b.Expect(deadline(t), ids...)
	if err != nil {
		t.Fatal(err)
	}
	return replyTo
}

func store(t testing.TB, b *Backend, batch ...*protocol.ResultMeta) {
	t.Helper()
	if err := b.Store(deadline(t), batch); err != nil {
		t.Fatal(err)
	}
}

func publish(t testing.TB, tr transport.Transport, queue string, messages ...*protocol.Message) {
	t.Helper()
	var batch []transport.Publication
	for _, m := range messages {
		batch = append(batch, transport.Publication{Message: m, RoutingKey: queue})
	}
	if err := tr.Publish(deadline(t), batch); err != nil {
		t.Fatal(err)
	}
}

// await returns the final meta of a task.
func await(t testing.TB, b *Backend, id string) (*protocol.ResultMeta, error) {
	t.Helper()
	for m, err := range b.Watch(deadline(t), id) {
		if err != nil {
			return nil, err
		}
		if m.Status.Ready() {
			return m, nil
		}
	}
	return nil, errors.New("the watch ended without a final state")
}

func success(id, replyTo string) *protocol.ResultMeta {
	return &protocol.ResultMeta{TaskID: id, Status: protocol.Success, Result: int64(1), ReplyTo: replyTo}
}

func TestContract(t *testing.T) {
	t.Parallel()
	for _, broker := range brokers {
		t.Run(broker.name, func(t *testing.T) {
			t.Parallel()
			backendstest.RunReplier(t, func(t testing.TB) backendstest.Opener {
				url := broker.url(t)
				return func(t testing.TB, o backends.Options) backends.Backend { return open(t, connect(t, url), o) }
			})
		})
	}
}

func TestReplyMessage(t *testing.T) {
	t.Parallel()
	failed := &protocol.ResultMeta{TaskID: "f", Status: protocol.Failure, Traceback: "Traceback", GroupID: "g", ParentID: "p", DateDone: time.Now(),
		Exception: &protocol.Exception{Type: "ValueError", Module: "builtins", Args: []any{"bad"}},
		Children:  []protocol.ResultTuple{{ID: "c"}}, Extended: &protocol.ExtendedMeta{Name: "tasks.add"}}
	tests := []struct {
		name    string
		options backends.Options
		meta    *protocol.ResultMeta
		want    protocol.Message
	}{
		{"success", backends.Options{}, &protocol.ResultMeta{TaskID: "s", Status: protocol.Success, Result: int64(3), CorrelationID: "c"},
			protocol.Message{ContentType: "application/json", ContentEncoding: "utf-8",
				Properties: protocol.Properties{CorrelationID: "c", DeliveryMode: 1},
				Body:       []byte(`{"task_id": "s", "status": "SUCCESS", "result": 3, "traceback": null, "children": []}`)}},
		{"failure, persistent", backends.Options{Persistent: true}, failed,
			protocol.Message{ContentType: "application/json", ContentEncoding: "utf-8",
				Properties: protocol.Properties{CorrelationID: "f", DeliveryMode: 2},
				Body: []byte(`{"task_id": "f", "status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["bad"], ` +
					`"exc_module": "builtins"}, "traceback": "Traceback", "children": [[["c", null], null]]}`)}},
		{"msgpack", backends.Options{Serializer: "msgpack"}, &protocol.ResultMeta{TaskID: "s", Status: "PROGRESS", Result: int64(3)},
			protocol.Message{ContentType: "application/x-msgpack", ContentEncoding: "binary",
				Properties: protocol.Properties{CorrelationID: "s", DeliveryMode: 1},
				Body:       []byte("\x85\xa7task_id\xa1s\xa6status\xa8PROGRESS\xa6result\x03\xa9traceback\xc0\xa8children\x90")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, url string) {
				tr := connect(t, url)
				consumer, err := tr.Consume(deadline(t), transport.ConsumeOptions{Queues: []transport.Queue{{Name: "reply", Unbound: true}}})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = consumer.Close(deadline(t)) }()
				unaddressed, addressed := *tt.meta, *tt.meta
				addressed.ReplyTo = "reply"
				store(t, open(t, tr, tt.options), &unaddressed, &addressed)
				deliveries, err := consumer.Receive(deadline(t), 10)
				if err != nil || len(deliveries) != 1 || deliveries[0].Err != nil {
					t.Fatalf("received %d messages, %v", len(deliveries), err)
				}
				got := *deliveries[0].Message
				got.Properties.DeliveryTag, got.Properties.DeliveryInfo = "", protocol.DeliveryInfo{}
				if d := cmp.Diff(tt.want, got); d != "" {
					t.Error(d)
				}
			})
		})
	}
}

func TestUnusableReplyToHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, url string) {
		tr := connect(t, url)
		var log bytes.Buffer
		client := open(t, tr, backends.Options{})
		worker := open(t, tr, backends.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		replyTo := expect(t, client, "good")
		if err := tr.Declare(deadline(t), transport.Queue{Name: "math"}); err != nil {
			t.Fatal(err)
		}
		// On Redis this key is a set; everywhere it is a queue that nobody has declared.
		store(t, worker, success("bad", "_kombu.binding.math"), success("good", replyTo), success("none", ""))
		if m, err := await(t, client, "good"); err != nil || m.Result != int64(1) {
			t.Errorf("got %+v, %v", m, err)
		}
		refused := strings.Count(log.String(), "result was not sent")
		if want := strings.Count(url[:5], "redis"); refused != want {
			t.Errorf("%d results were refused, want %d; log:\n%s", refused, want, &log)
		}
	})
}

func TestLongCorrelationID(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, url string) {
		tr := connect(t, url)
		b := open(t, tr, backends.Options{})
		id := strings.Repeat("x", 300)
		store(t, b, success(id, expect(t, b, id)))
		if m, err := await(t, b, id); err != nil || m.TaskID != id {
			t.Errorf("got %+v, %v", m, err)
		}
	})
}

func TestWhatOthersSend(t *testing.T) {
	t.Parallel()
	message := func(id, contentType, body string) *protocol.Message {
		return &protocol.Message{ContentType: contentType, ContentEncoding: "utf-8", Body: []byte(body),
			Properties: protocol.Properties{CorrelationID: id, DeliveryMode: 1}}
	}
	const json = "application/json"
	each(t, func(t *testing.T, url string) {
		tr := connect(t, url)
		b := open(t, tr, backends.Options{})
		replyTo := expect(t, b, "cut", "yaml", "text", "short", "whole", "other", "done")
		compressed := message("zip", json, "no gzip")
		compressed.Headers.Compression = "application/x-gzip"
		publish(t, tr, replyTo,
			message("cut", json, `{"status": "SUCCESS", "res`),
			message("yaml", "application/x-yaml", "status: SUCCESS"),
			message("text", "", "SUCCESS"),
			compressed,
			message("", json, `{"status": "SUCCESS"}`),
			message("", json, `[`),
			message("short", json, `{"status": "SUCCESS"}`),
			message("", json, `{"task_id": "whole", "status": "SUCCESS", "result": 2, "traceback": null, "children": [],
				"date_done": "2026-01-02T03:04:05+00:00", "group_id": "g"}`),
			message("other", json, `{"task_id": "another", "status": "SUCCESS"}`),
			message("nobody", json, `{"task_id": "nobody", "status": "SUCCESS"}`),
			message("done", json, `{"status": "SUCCESS"}`))
		if _, err := await(t, b, "done"); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"cut", "yaml", "text", "zip"} {
			_, err := await(t, b, id)
			var unreadable *backends.DecodeError
			if !errors.As(err, &unreadable) || unreadable.TaskID != id {
				t.Errorf("%s: got %v, want a DecodeError", id, err)
			}
			if _, err = b.Get(t.Context(), id); !errors.As(err, &unreadable) {
				t.Errorf("%s: get returned %v", id, err)
			}
		}
		var refused *serialization.ContentDisallowed
		if _, err := await(t, b, "yaml"); !errors.As(err, &refused) {
			t.Errorf("yaml: %v", err)
		}
		for _, id := range []string{"short", "whole", "other", "nobody"} { // nobody was not expected, but has come
			if m, err := await(t, b, id); err != nil || m.TaskID != id {
				t.Errorf("%s: %+v, %v", id, m, err)
			}
		}
		if m, err := await(t, b, "whole"); err != nil || m.GroupID != "g" || m.DateDone.IsZero() {
			t.Errorf("whole: %+v, %v", m, err)
		}
	})
}

func TestUnexpected(t *testing.T) {
	t.Parallel()
	b := open(t, connect(t, "memory://"+protocol.NewID()), backends.Options{})
	expect(t, b, "known")
	for m, err := range b.Watch(t.Context(), "known", "unknown") {
		if !errors.Is(err, backends.ErrUnexpected) {
			t.Errorf("watch yields %v, %v", m, err)
		}
	}
	if m, err := b.Get(t.Context(), "unknown"); err != nil || m.Status != protocol.Pending {
		t.Errorf("get returns %v, %v", m, err)
	}
}

func TestNoQueueBeforeExpect(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, url string) {
		tr := connect(t, url)
		b := open(t, tr, backends.Options{})
		store(t, b, success("a", ""))
		for _, err := range b.Watch(deadline(t), "a") {
			if !errors.Is(err, backends.ErrUnexpected) {
				t.Error(err)
			}
		}
		if b.consumer != nil {
			t.Error("a backend that expects nothing consumes")
		}
	})
}

func TestExpectManyAtOnce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, url string) {
		tr := connect(t, url)
		b := open(t, tr, backends.Options{})
		names := make(chan string, 20)
		for range cap(names) {
			go func() {
				name, err := b.Expect(t.Context(), protocol.NewID())
				if err != nil {
					t.Error(err)
				}
				names <- name
			}()
		}
		for range cap(names) {
			if name := <-names; name != b.queue.Name {
				t.Errorf("reply queue %q, want %q", name, b.queue.Name)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.Expect(ctx, "late"); err != nil {
			t.Errorf("expecting one more costs a round trip: %v", err)
		}
	})
}

func TestCloseRemovesTheQueue(t *testing.T) {
	t.Parallel()
	listed := func(tr transport.Transport, queue string) bool {
		names, err := tr.(transport.Inspector).Queues(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(names, queue)
	}
	server := testservice.RabbitMQ(t)
	for name, broker := range map[string]struct {
		url    string
		exists func(tr transport.Transport, queue string) bool
	}{
		"memory": {"memory://" + protocol.NewID(), listed},
		"redis":  {testservice.Redis(t), listed},
		"rabbitmq": {server.URL, func(_ transport.Transport, queue string) bool {
			ready, _ := server.Depth(queue)
			return ready >= 0
		}},
	} {
		tr := connect(t, broker.url)
		b := open(t, tr, backends.Options{})
		replyTo := expect(t, b, "a", "late")
		store(t, b, success("a", replyTo))
		if _, err := await(t, b, "a"); err != nil {
			t.Fatal(err)
		}
		if name == "rabbitmq" && !broker.exists(tr, replyTo) { // on the others a queue is what is in it
			t.Errorf("%s: there is no queue %q", name, replyTo)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if broker.exists(tr, replyTo) {
			t.Errorf("%s: queue %q is left behind", name, replyTo)
		}
	}
}

// TestResultsSurviveAReconnect has results sent while the client is away from its queue.
func TestResultsSurviveAReconnect(t *testing.T) {
	t.Parallel()
	server := testservice.RabbitMQ(t)
	tr, other := connect(t, server.URL), connect(t, server.URL)
	client, worker := open(t, tr, backends.Options{}), open(t, other, backends.Options{})
	const rounds = 3
	for i := range rounds {
		id := strconv.Itoa(i)
		replyTo := expect(t, client, id)
		if n := server.CloseConnections(); n == 0 {
			t.Error("there was no connection to close")
		}
		store(t, worker, success(id, replyTo))
		if m, err := await(t, client, id); err != nil || m.Result != int64(1) {
			t.Fatalf("round %d: %v, %v", i, m, err)
		}
	}
}

func TestTransportClosed(t *testing.T) {
	t.Parallel()
	tr := connect(t, testservice.Redis(t))
	b := open(t, tr, backends.Options{})
	expect(t, b, "a", "b")
	store(t, b, success("a", b.queue.Name))
	if _, err := await(t, b, "a"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := await(t, b, "b")
		ended <- err
	}()
	if err := b.consumer.Close(deadline(t)); err != nil { // what a transport does that is closed too early
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, transport.ErrClosed) {
		t.Errorf("the watch ended with %v", err)
	}
	if _, err := b.Expect(deadline(t), "c"); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("expect returned %v", err)
	}
	if m, err := await(t, b, "a"); err != nil || m.Result != int64(1) {
		t.Errorf("what has arrived is gone: %v, %v", m, err)
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	tr := connect(t, "memory://"+protocol.NewID())
	accept, err := serialization.NewAccept("yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]backends.Options{
		"option":     {Broker: tr, TransportOptions: map[string]any{"global_keyprefix": "x"}},
		"serializer": {Broker: tr, Serializer: "xml"},
		"accept":     {Broker: tr, Accept: accept},
		"broker":     {},
	} {
		b, err := backends.Open(t.Context(), "rpc://", o)
		if err == nil {
			_ = b.Close()
			t.Errorf("%s: taken", name)
		}
		if (o.Broker == nil) != errors.Is(err, ErrNoBroker) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
