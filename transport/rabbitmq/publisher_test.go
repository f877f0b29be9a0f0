//go:build unix

package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// suspend stops the process of a quorum queue, as a lost majority would, and returns what lets it go on.
func suspend(s *testservice.RabbitMQServer, queue string) (resume func()) {
	process := fmt.Sprintf(`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"%s">>, queue, <<"%s">>)), {N, _} = amqqueue:get_pid(Q)`, s.Vhost, queue)
	s.Eval(process + ", sys:suspend(N)")
	return func() { s.Eval(process + ", sys:resume(N)") }
}

func oversized() transport.Publication {
	m := taskMessage("large")
	m.Body = []byte(strings.Repeat("x", 3000))
	return transport.Publication{Message: m, RoutingKey: "large"}
}

// TestSilentQueueGetsNoMoreThanItsWindow publishes more than RabbitMQ reads of a connection on which a queue confirms
// nothing: other queues are served, and the channel is replaced when nobody waits for it any more.
func TestSilentQueueGetsNoMoreThanItsWindow(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, nil)
	r.declare(transport.Queue{Name: "silent", Arguments: map[string]any{"x-queue-type": "quorum"}}, transport.Queue{Name: "well"})
	resume := suspend(s, "silent")
	batch := make([]transport.Publication, 1024)
	for i := range batch {
		batch[i] = transport.Publication{Message: taskMessage(fmt.Sprint(i)), RoutingKey: "silent"}
	}
	r.refuses(1500*time.Millisecond, func(ctx context.Context) error { return r.tr.Publish(ctx, batch) })
	err := r.publish(r.within(10*time.Second), "well", "free")
	if err == nil {
		r.log.await(t, patience, "publishing channel lost", errForsaken.Error())
	}
	resume()
	if err != nil {
		t.Fatalf("publish to another queue: %v", err)
	}
	r.send("silent", "after")
}

// TestOptionalWaitsForItsConnection lets nothing pass for longer than a queue may be silent: an optional message is not
// given up because its connection is, but goes through afterwards.
func TestOptionalWaitsForItsConnection(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	proxy := testservice.NewProxy(t, s.Addr)
	r := newRig(t, through(s, proxy.Addr), nil)
	r.declare(transport.Queue{Name: "q"})
	r.send("q", "before")
	proxy.Pause()
	sent := make(chan error, 1)
	go func() {
		sent <- r.tr.Publish(r.within(patience), []transport.Publication{{Message: taskMessage("reply"), RoutingKey: "q", Optional: true}})
	}()
	<-time.After(silentPause + time.Second) // less than the connection may be silent
	proxy.Resume()
	if err := coming(t, sent); err != nil {
		t.Error(err)
	}
}

// TestOptionalToARemovedExchange loses one channel to it, not one for each message.
func TestOptionalToARemovedExchange(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, nil)
	r.declare(transport.Queue{Name: "bc", Exchange: "bc", ExchangeType: "fanout", Broadcast: true})
	cast := func() {
		t.Helper()
		if err := r.tr.Publish(r.within(patience), []transport.Publication{{Message: taskMessage("b"), Exchange: "bc", Optional: true}}); err != nil {
			t.Fatal(err)
		}
	}
	cast()
	s.Manage("DELETE", "/api/exchanges/"+url.PathEscape(s.Vhost)+"/bc", "")
	for range 10 {
		cast()
	}
	r.log.await(t, patience, "publishing channel lost", "no exchange 'bc'")
	if n := strings.Count(r.log.String(), "publishing channel lost"); n > 1 {
		t.Errorf("the publishing channel was lost %d times", n)
	}
}

// tooLarge publishes what the broker closes the channel for without saying which message it means.
func tooLarge(t *testing.T, s *testservice.RabbitMQServer) {
	was := s.Eval("{ok, N} = application:get_env(rabbit, max_message_size), application:set_env(rabbit, max_message_size, 2000), N")
	defer s.Eval("application:set_env(rabbit, max_message_size, " + was + ")")
	r := newRig(t, s.URL, nil)
	r.declare(transport.Queue{Name: "large", Arguments: map[string]any{"x-max-length": 1000}})
	e := r.refuses(patience, func(ctx context.Context) error { return r.tr.Publish(ctx, []transport.Publication{oversized()}) })
	if !errors.Is(e, transport.ErrRefused) || errors.Is(e, transport.ErrMismatch) || e.InDoubt {
		t.Errorf("%v; expected ErrRefused without doubt", e)
	}
	callerLeaves(r, s.URL)
}

// whenLost calls f when the publisher has lost a channel, before it goes on.
type whenLost struct {
	*journal
	f atomic.Pointer[context.CancelFunc]
}

func (w *whenLost) Handle(ctx context.Context, rec slog.Record) error {
	if f := w.f.Load(); f != nil && rec.Message == "publishing channel lost" {
		(*f)()
	}
	return w.journal.Handle(ctx, rec)
}

// callerLeaves has the caller of a message that is too large give up before it is found out which one that is. The
// others, of whom there are always some, are not sent one by one for ever after.
func callerLeaves(r *rig, url string) {
	log := &whenLost{journal: r.log}
	tr, err := open(r.within(patience), url, transport.Options{Logger: slog.New(log)})
	if err != nil {
		r.Fatal(err)
	}
	defer func() {
		if err := tr.Close(r.within(patience)); err != nil {
			r.Error(err)
		}
	}()
	small := transport.Publication{Message: taskMessage("small"), RoutingKey: "large"}
	ctx, stop := context.WithCancel(r.Context())
	var others sync.WaitGroup
	for range 64 {
		others.Go(func() {
			for ctx.Err() == nil {
				if err := tr.Publish(ctx, []transport.Publication{small}); err != nil && ctx.Err() == nil {
					r.Errorf("another's publish: %v", err)
				}
			}
		})
	}
	defer others.Wait()
	defer stop()
	measure := func() time.Duration {
		start := time.Now()
		if err := tr.Publish(r.within(patience), slices.Repeat([]transport.Publication{small}, 5000)); err != nil {
			r.Fatal(err)
		}
		return time.Since(start)
	}
	before := measure()
	for err = nil; !errors.Is(err, context.Canceled); { // it may have been alone on its way, and found out at once
		brief, leave := context.WithCancel(r.within(patience))
		log.f.Store(&leave)
		if err = tr.Publish(brief, []transport.Publication{oversized()}); !errors.Is(err, context.Canceled) && !errors.Is(err, transport.ErrRefused) {
			r.Fatal(err)
		}
	}
	after := measure()
	r.Logf("5000 messages took %v before and %v after", before, after)
	if after > 3*before+time.Second {
		r.Errorf("5000 messages took %v before and %v after", before, after)
	}
}

// TestTopicPermission publishes with a key that the user may not use: other keys of the exchange are not failed for it.
func TestTopicPermission(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	user := restricted(t, s, ".*", "")
	newRig(t, s.URL, nil).declare(transport.Queue{Name: "q", Exchange: "ev", ExchangeType: "topic", RoutingKey: "#"})
	s.Manage("PUT", "/api/topic-permissions/"+url.PathEscape(s.Vhost)+"/"+user, `{"exchange":"ev","write":"^good","read":".*"}`)
	r := newRig(t, withUser(s.URL, user), nil)
	to := func(key string) error {
		return r.tr.Publish(r.within(patience), []transport.Publication{{Message: taskMessage(key), Exchange: "ev", RoutingKey: key}})
	}
	var good sync.WaitGroup
	for i := range 50 {
		good.Go(func() {
			if err := to(fmt.Sprint("good", i)); err != nil {
				t.Error(err)
			}
		})
	}
	if err := to("bad"); !errors.Is(err, transport.ErrDenied) {
		t.Errorf("a key that is not permitted: %v", err)
	}
	good.Wait()
}

// TestNamedIn is about the broker's words for what closed a channel.
func TestNamedIn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		exchange, key, reason string
		want                  bool
	}{
		{"x", "k", "NOT_FOUND - no exchange 'x' in vhost '/'", true},
		{"x", "k", "NOT_FOUND - no exchange 'y' in vhost '/'", false},
		{"x", "k", "ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused for user 'u'", true},
		{"", "k", "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'u'", true},
		{"", "k", "ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused for user 'u'", false},
		{"x", "k", "ACCESS_REFUSED - access to topic 'k' in exchange 'x' in vhost '/' refused for user 'u'", true},
		{"x", "l", "ACCESS_REFUSED - access to topic 'k' in exchange 'x' in vhost '/' refused for user 'u'", false},
		{"y", "k", "ACCESS_REFUSED - access to topic 'k' in exchange 'x' in vhost '/' refused for user 'u'", false},
		{"in vhost", "k", "NOT_FOUND - no exchange 'in vhost' in vhost '/'", true},
		{"x", "k", "PRECONDITION_FAILED - message size 3000 is larger than configured max size 2000", false},
	} {
		if got := (&outbound{exchange: tt.exchange, key: tt.key}).namedIn(tt.reason); got != tt.want {
			t.Errorf("%q, %q in %q: %v", tt.exchange, tt.key, tt.reason, got)
		}
	}
}

// TestCloseUnread closes while a lane writes to a broker that does not read, with a write timeout of a minute.
func TestCloseUnread(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	proxy := testservice.NewProxy(t, s.Addr)
	r := newLooseRig(t, through(s, proxy.Addr), map[string]any{"write_timeout": 60.0})
	r.declare(transport.Queue{Name: "q"})
	proxy.Pause()
	m := taskMessage("large")
	m.Body = make([]byte, 1<<20)
	batch := make([]transport.Publication, 64) // more than the buffers of the system on its way
	for i := range batch {
		batch[i] = transport.Publication{Message: m, RoutingKey: "q"}
	}
	r.refuses(500*time.Millisecond, func(ctx context.Context) error { return r.tr.Publish(ctx, batch) })
	waiting := make(chan error, 1)
	go func() { waiting <- r.publish(r.within(patience), "q", "waits") }()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := r.tr.Close(ctx)
	took := time.Since(start)
	t.Logf("closed after %v: %v", took, err)
	if took > slack*200*time.Millisecond {
		t.Errorf("Close with 200 ms took %v", took)
	}
	if err := coming(t, waiting); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("the call that waited ended with %v", err)
	}
	if err := r.tr.Close(r.within(slack * 2 * time.Second)); err != nil {
		t.Errorf("the end: %v", err)
	}
}

// TestRefusedOfABatch: of a batch of which the broker refuses some it is told which, and all others are there.
func TestRefusedOfABatch(t *testing.T) {
	t.Parallel()
	r := newRig(t, testservice.RabbitMQ(t).URL, nil)
	r.declare(transport.Queue{Name: "q"})
	var batch []transport.Publication
	for i, queue := range []string{"q", "missing", "q", "none"} {
		batch = append(batch, transport.Publication{Message: taskMessage(fmt.Sprint(i)), RoutingKey: queue})
	}
	e := r.refuses(patience, func(ctx context.Context) error { return r.tr.Publish(ctx, batch) })
	if !e.InDoubt || len(e.Failed) != 2 || !errors.Is(e.Failed[1], transport.ErrNoRoute) || !errors.Is(e.Failed[3], transport.ErrNoRoute) {
		t.Errorf("%v; refused %v", e, e.Failed)
	}
	if got := r.take(r.consume(10, transport.Queue{Name: "q"}), 2); !slices.Equal(got, []string{"0", "2"}) {
		t.Errorf("in the queue: %v", got)
	}
}
