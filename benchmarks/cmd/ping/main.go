// Command ping measures how long a worker takes to answer while all of its slots are busy:
//
//	go run ./cmd/ping
//	go run ./cmd/ping -brokers rabbitmq -pings 200
//
// It starts a redis-server and a RabbitMQ of its own and, for each of them, a worker whose tasks use up the processors for a
// millisecond each, more than it can hold. The time of a ping is that of `gelery inspect ping`, without the start of the
// command and the connection: it has the making of the queue for the reply in it. Nothing is pinned, so the machine should do
// nothing else.
//
// Exit codes: 0 the bound holds, 1 it does not or something is missing, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gelery/gelery/benchmarks/internal/lab"
	"github.com/gelery/gelery/internal/rabbitmqserver"
	"github.com/gelery/gelery/internal/redisserver"
	"github.com/gelery/gelery/monitor"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
	_ "github.com/gelery/gelery/transport/rabbitmq"
	_ "github.com/gelery/gelery/transport/redis"
	"github.com/gelery/gelery/worker"
)

const (
	taskLasts = time.Millisecond
	batch     = 500
)

var sides = map[string]lab.Side{"worker": work}

var spin = task.Define[task.NoArgs, task.NoResult]("bench.spin", task.IgnoreResult(true))

// servers start what can be measured.
var servers = map[string]func(ctx context.Context) (url string, stop func() error, err error){
	"redis": func(ctx context.Context) (string, func() error, error) {
		s, err := redisserver.Start(ctx)
		if err != nil {
			return "", nil, err
		}
		return s.URL, s.Stop, nil
	},
	"rabbitmq": func(ctx context.Context) (string, func() error, error) {
		c, err := rabbitmqserver.Config{}.Start(ctx)
		if err != nil {
			return "", nil, err
		}
		return "amqp://guest:guest@" + c.Nodes[0].Addr + "//", c.Close, nil
	},
}

type config struct {
	brokers            []string
	pings, concurrency int
	most               time.Duration
}

// Limit is lab.Config's.
func (c config) Limit() time.Duration { return 10 * time.Minute }

func main() { lab.Main("ping", sides, parse, measure) }

func parse(args []string) (c config, err error) {
	var brokers string
	f := flag.NewFlagSet("ping", flag.ContinueOnError)
	f.StringVar(&brokers, "brokers", "redis,rabbitmq", "what to measure")
	f.IntVar(&c.pings, "pings", 100, "how often each worker is asked")
	f.IntVar(&c.concurrency, "concurrency", 4, "slots of the worker")
	f.DurationVar(&c.most, "most", 100*time.Millisecond, "what the slowest answer may take")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	c.brokers = strings.Split(brokers, ",")
	if slices.ContainsFunc(c.brokers, func(name string) bool { return servers[name] == nil }) || c.pings < 1 || c.concurrency < 1 || f.NArg() > 0 {
		return c, errors.New("expected no arguments, -brokers of redis and rabbitmq, -pings and -concurrency from 1")
	}
	return c, nil
}

// work is a worker whose tasks do nothing but use up time.
func work(ctx context.Context, o lab.Order, say func(lab.Report)) error {
	say(lab.Report{Started: time.Now().UnixNano()})
	return lab.Work(ctx, o, func(mux *worker.Mux) {
		worker.Handle(mux, spin, func(context.Context, task.NoArgs) (task.NoResult, error) {
			for until := time.Now().Add(taskLasts); time.Now().Before(until); {
			}
			return task.NoResult{}, nil
		})
	})
}

func measure(ctx context.Context, c config) (missed []string, err error) {
	for _, name := range c.brokers {
		load := lab.Load()
		times, err := c.at(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		slices.Sort(times)
		most := times[len(times)-1]
		fmt.Printf("%-9s %d slots busy, %d pings: p50 %v, p99 %v, at most %v; load %s\n", name, c.concurrency, len(times),
			lab.Percentile(times, 50), lab.Percentile(times, 99), most, load)
		if most > c.most {
			missed = append(missed, fmt.Sprintf("%s: ping took %v, want at most %v", name, most, c.most))
		}
	}
	return missed, nil
}

// at returns how long each ping took over a broker.
func (c config) at(ctx context.Context, broker string) (times []time.Duration, err error) {
	url, stop, err := servers[broker](ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	o := lab.Order{Side: "worker", Broker: url, Concurrency: c.concurrency}
	client, err := lab.Dial(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.Close(context.WithoutCancel(ctx))) }()
	p, err := lab.Place{}.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	if _, err := p.Next(); err != nil {
		return nil, err
	}
	control, err := monitor.NewControl(client.Transport(), monitor.ControlConfig{Timeout: time.Minute})
	if err != nil {
		return nil, err
	}
	if err := refill(ctx, client); err != nil { // declares the queue where it is not there
		return nil, err
	}
	node, err := begun(ctx, control)
	if err != nil {
		return nil, err
	}
	for range c.pings {
		if err := refill(ctx, client); err != nil {
			return nil, err
		}
		begun := time.Now()
		for r, err := range control.To(node).Ask(ctx, "ping", nil) {
			if err = errors.Join(err, r.Err()); err != nil {
				return nil, err
			}
			times = append(times, time.Since(begun))
		}
	}
	if len(times) != c.pings {
		return nil, fmt.Errorf("%d of %d pings were answered", len(times), c.pings)
	}
	return times, nil
}

// begun waits until tasks have run, and returns the worker's node name.
func begun(ctx context.Context, control *monitor.Control) (node string, err error) {
	err = lab.Until(ctx, 100*time.Millisecond, func() (bool, error) {
		all, err := control.Within(time.Second).Limit(1).Stats(ctx)
		if len(all) == 0 || err != nil {
			return false, err
		}
		node = all[0].Node
		return len(all[0].Value.Total) > 0, all[0].Err
	})
	return node, err
}

// refill sees to it that more tasks wait than the worker holds.
func refill(ctx context.Context, client *task.Client) error {
	depths, err := client.Transport().(transport.Inspector).Depths(ctx, []string{client.Config().Queue})
	if err != nil || depths[0].Messages >= batch {
		return err
	}
	_, err = spin.SendBatch(ctx, client, make([]task.NoArgs, batch))
	return err
}
