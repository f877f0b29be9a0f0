package main

import (
	"context"
	"errors"
	"os"
	"reflect"
	"strconv"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/benchmarks/internal/lab"
	"github.com/gelery/gelery/internal/rabbitmqserver"
	"github.com/gelery/gelery/internal/redisserver"
)

// TestMain lets this test program be the measured process, as the command is its own.
func TestMain(m *testing.M) {
	if code, ok := lab.RunSide(sides); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func testBench(t *testing.T, c config) (*bench, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	b, err := newBench(ctx, c)
	if (errors.Is(err, redisserver.ErrNotInstalled) || errors.Is(err, rabbitmqserver.ErrNotInstalled)) &&
		os.Getenv("GELERY_TEST_SERVERS") != "required" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	return b, ctx
}

// TestOnRabbitMQ shares a broker, which takes seconds to start.
func TestOnRabbitMQ(t *testing.T) {
	t.Parallel()
	b, ctx := testBench(t, config{tasks: 200, rate: 100, seconds: 1})
	t.Run("both sides", func(t *testing.T) { testBothSides(ctx, t, b) })
	t.Run("the same message", func(t *testing.T) { testSameMessage(ctx, t, b) })
	t.Run("what is missing", func(t *testing.T) { testMissing(ctx, t, b) })
}

// testBothSides runs each measurement once. They check by themselves that nothing is missing.
func testBothSides(ctx context.Context, t *testing.T, b *bench) {
	for _, kind := range queueTypes {
		measured := func(what string, r lab.Run, err error) {
			t.Helper()
			if err != nil || r.Rate <= 0 || len(r.Costs) != 3 {
				t.Errorf("%s, %s: %+v, %v", what, kind, r, err)
			}
		}
		o := b.order("gelery-publish", kind, noResults)
		o.Batch, o.Producers = 7, 3
		r, err := b.publishGelery(ctx, o)
		measured("gelery publishes", r, err)
		o = b.order("minimal-publish", kind, noResults)
		o.Batch = 64
		r, err = b.publishMinimal(ctx, o)
		measured("minimal publishes", r, err)
		r, err = b.drainGelery(ctx, kind, 10)
		measured("gelery drains", r, err)
		r, err = b.drainMinimal(ctx, kind, 10)
		measured("minimal drains", r, err)
		for _, results := range []backend{redisResults, rpcResults} {
			sorted, _, err := b.latencies(ctx, kind, results)
			if err != nil || len(sorted) != 100 || sorted[0] <= 0 {
				t.Errorf("latencies, %s, %v results: %d, %v", kind, results, len(sorted), err)
			}
		}
	}
}

// testSameMessage proves that both sides of the comparison send the same message.
func testSameMessage(ctx context.Context, t *testing.T, b *bench) {
	get := func() (m amqp.Publishing) {
		t.Helper()
		if err := b.onChannel(func(ch *amqp.Channel) (err error) { m, err = template(ch); return err }); err != nil {
			t.Fatal(err)
		}
		return m
	}
	one := b.order("gelery-publish", "classic", noResults)
	one.Tasks = 1
	if err := b.fill(ctx, one); err != nil {
		t.Fatal(err)
	}
	ours := get()
	if ours.Headers["task"] != lab.Add.Name() || len(ours.Headers) < 15 || len(ours.Body) == 0 ||
		ours.DeliveryMode != amqp.Persistent {
		t.Errorf("gelery sent %+v", ours)
	}
	o := b.order("minimal-publish", "classic", noResults)
	o.Batch = 8
	if _, err := b.publishMinimal(ctx, o); err != nil {
		t.Fatal(err)
	}
	theirs := get()
	// What differs from call to call: the id, and the process it came from.
	for _, name := range []string{"id", "root_id", "origin"} {
		if ours.Headers[name] == nil || theirs.Headers[name] == nil {
			t.Errorf("header %s is missing", name)
		}
		delete(ours.Headers, name)
		delete(theirs.Headers, name)
	}
	ours.CorrelationId, theirs.CorrelationId = "", ""
	ours.ReplyTo, theirs.ReplyTo = "", ""
	if !reflect.DeepEqual(ours, theirs) {
		t.Errorf("gelery sent %+v\nminimal sent %+v", ours, theirs)
	}
}

// testMissing: a run of which a message is missing is an error and not a figure.
func testMissing(ctx context.Context, t *testing.T, b *bench) {
	o := b.order("gelery-publish", "classic", noResults)
	if err := b.fill(ctx, o); err != nil {
		t.Fatal(err)
	}
	if err := b.expect(b.tasks - 1); err == nil {
		t.Error("a message too many, and nobody says so")
	}
	if got, err := b.broker.Eval(ctx, total); err != nil || got != strconv.Itoa(b.tasks) {
		t.Errorf("the broker counts %s, %v; expected %d", got, err, b.tasks)
	}
	// One message too many and one result too few must end with the time, not with success.
	for what, check := range map[string]func(context.Context) error{
		"the queue is full":   b.expectDrained,
		"no result is stored": func(ctx context.Context) error { return b.awaitResults(ctx, 1) },
	} {
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		var late interface{ Timeout() bool } // a context's, or that of a connection that had no more time
		if err := check(short); !errors.As(err, &late) || !late.Timeout() {
			t.Errorf("%s, and the check says %v; expected that its time is over", what, err)
		}
		cancel()
	}
	o.Side, o.Batch = "minimal-publish", 1
	if err := b.empty(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := b.publish(ctx, o); err == nil {
		t.Error("there is no message to send again, and nobody says so")
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	c, err := parse([]string{"-only", "drain,memory", "-types", "quorum", "-concurrency", "1,7"})
	if err != nil || len(c.only) != 2 || len(c.types) != 1 || len(c.concurrency) != 2 || c.concurrency[1] != 7 ||
		c.minDrain != 0.7 || c.minPublish != 0.8 {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, bad := range [][]string{
		{"-only", "all"}, {"-types", "stream"}, {"-concurrency", "0"}, {"-pairs", "0"}, {"-tasks", "5"}, {"extra"},
	} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}
