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
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// patience bounds what has to happen some time.
const patience = 30 * time.Second

// slack is what bounds on time are multiplied by: the machine has others to serve. What was measured is logged.
const slack = 3

// rig is a transport that a test breaks, with what it logged.
type rig struct {
	*testing.T
	tr  *rabbitTransport
	log *journal
}

// newRig opens a transport that is closed with the test.
func newRig(t *testing.T, url string, options map[string]any) *rig {
	t.Helper()
	r := newLooseRig(t, url, options)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.tr.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return r
}

// newLooseRig opens a transport that the test closes itself.
func newLooseRig(t *testing.T, url string, options map[string]any) *rig {
	t.Helper()
	r := &rig{T: t, log: &journal{}}
	tr, err := open(r.within(patience), url, transport.Options{Logger: slog.New(r.log), TransportOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	r.tr = tr.(*rabbitTransport)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the driver logged:\n%s", r.log)
		}
	})
	return r
}

// through is the server's URL by way of a proxy.
func through(s *testservice.RabbitMQServer, addr string) string {
	return strings.Replace(s.URL, s.Addr, addr, 1)
}

func (r *rig) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(r.Context(), d)
	r.Cleanup(cancel)
	return ctx
}

func (r *rig) declare(queues ...transport.Queue) {
	r.Helper()
	mustDeclare(r.T, r.tr, queues...)
}

// publish sends one message to a queue.
func (r *rig) publish(ctx context.Context, queue, id string) error {
	return r.tr.Publish(ctx, []transport.Publication{{Message: taskMessage(id), RoutingKey: queue}})
}

func (r *rig) send(queue string, ids ...string) {
	r.Helper()
	for _, id := range ids {
		if err := r.publish(r.within(patience), queue, id); err != nil {
			r.Fatal(err)
		}
	}
}

// consume is the consumer of some queues, closed with the test.
func (r *rig) consume(prefetch int, queues ...transport.Queue) *consumer {
	r.Helper()
	c, err := r.tr.Consume(r.within(patience), transport.ConsumeOptions{Queues: queues, Prefetch: prefetch})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			r.Error(err)
		}
	})
	return c.(*consumer)
}

// receive takes n deliveries.
func (r *rig) receive(c *consumer, n int) []transport.Delivery {
	r.Helper()
	var all []transport.Delivery
	for ctx := r.within(patience); len(all) < n; {
		ds, err := c.Receive(ctx, n-len(all))
		if err != nil {
			r.Fatalf("after %d of %d: %v", len(all), n, err)
		}
		all = append(all, ds...)
	}
	return all
}

// take takes deliveries, acknowledges them and returns their ids.
func (r *rig) take(c *consumer, n int) []string {
	r.Helper()
	ds := r.receive(c, n)
	ids := make([]string, n)
	for i := range ds {
		ids[i] = ds[i].Message.Headers.ID
	}
	r.settle(c, transport.Ack, ds...)
	return ids
}

func (r *rig) settle(c *consumer, v transport.Verdict, ds ...transport.Delivery) (lost int) {
	r.Helper()
	batch := make([]transport.Settlement, len(ds))
	for i := range ds {
		batch[i] = transport.Settlement{Delivery: &ds[i], Verdict: v, Reason: "it is bad"}
	}
	lost, err := c.Settle(r.within(patience), batch)
	if err != nil {
		r.Fatal(err)
	}
	return lost
}

// refuses checks that a call fails on time with a PublishError, and returns it.
func (r *rig) refuses(limit time.Duration, call func(ctx context.Context) error) *transport.PublishError {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	start := time.Now()
	err := call(ctx)
	took := time.Since(start)
	var publish *transport.PublishError
	if !errors.As(err, &publish) {
		r.Fatalf("after %v: %v; expected a PublishError", took, err)
	}
	if took > slack*limit {
		r.Errorf("a call with a deadline of %v took %v", limit, took)
	}
	r.Logf("deadline %v, ended after %v: %v", limit, took.Round(time.Millisecond), err)
	return publish
}

// coming is what comes on a channel, in time.
func coming[T any](t testing.TB, from <-chan T) (got T) {
	t.Helper()
	select {
	case got = <-from:
	case <-time.After(2 * patience):
		t.Error("what was waited for did not come in time")
	}
	return got
}

// journal keeps what is logged.
type journal struct {
	mu      sync.Mutex
	lines   []string
	changed chan struct{} // closed and replaced with every line; nil: nobody waits
}

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler       { return j }
func (j *journal) WithGroup(string) slog.Handler            { return j }

func (j *journal) Handle(_ context.Context, rec slog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", rec.Time.Format("05.000"), rec.Level, rec.Message)
	rec.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&b, " %s", a); return true })
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lines = append(j.lines, b.String()); len(j.lines) > 1000 {
		j.lines = j.lines[500:]
	}
	if j.changed != nil {
		close(j.changed)
		j.changed = nil
	}
	return nil
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n")
}

// await waits until a line holds all of the texts, and returns it.
func (j *journal) await(t *testing.T, limit time.Duration, texts ...string) string {
	t.Helper()
	end := time.After(limit)
	for {
		j.mu.Lock()
		i := slices.IndexFunc(j.lines, func(line string) bool {
			return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) })
		})
		if i >= 0 {
			line := j.lines[i]
			j.mu.Unlock()
			return line
		}
		if j.changed == nil {
			j.changed = make(chan struct{})
		}
		changed := j.changed
		j.mu.Unlock()
		select {
		case <-changed:
		case <-end:
			t.Fatalf("nothing with %q was logged within %v, but\n%s", texts, limit, j)
		}
	}
}

// deleteQueue removes a queue as an operator does.
func deleteQueue(s *testservice.RabbitMQServer, name string) {
	s.Manage("DELETE", "/api/queues/"+url.PathEscape(s.Vhost)+"/"+name, "")
}

// withUser is a URL for another user, made by restricted.
func withUser(url, user string) string { return strings.Replace(url, "guest:guest", user+":secret", 1) }

// permit gives a user other rights.
func permit(s *testservice.RabbitMQServer, user, configure, write, read string) {
	s.Manage("PUT", "/api/permissions/"+url.PathEscape(s.Vhost)+"/"+user,
		fmt.Sprintf(`{"configure":%q,"write":%q,"read":%q}`, configure, write, read))
}
