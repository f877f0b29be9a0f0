package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"

	_ "github.com/gelery/gelery/backends/redis"
	_ "github.com/gelery/gelery/backends/rpc"
	"github.com/gelery/gelery/benchmarks/internal/lab"
	"github.com/gelery/gelery/internal/rabbitmqserver"
	"github.com/gelery/gelery/internal/redisserver"
	_ "github.com/gelery/gelery/transport/rabbitmq"
)

const (
	queue = "bench"
	// window is how many messages a Gelery process has unconfirmed at most.
	window = 1024
	// batch and producers keep that window full: goroutines that each wait for the hundred they have sent.
	batch     = 100
	producers = 20
	// prefetch is Gelery's default: so many times the concurrency.
	prefetch = 4
	// pollInterval is how often the end of a drain is looked for: the resolution of the figures.
	pollInterval = 5 * time.Millisecond
)

// backend says where results go.
type backend int

const (
	noResults backend = iota
	redisResults
	rpcResults
)

func (r backend) String() string { return [...]string{"no", "Redis", "rpc"}[r] }

// bench is one run of this program: the servers, and what it found.
type bench struct {
	config
	place   lab.Place
	cluster *rabbitmqserver.Cluster
	broker  *rabbitmqserver.Node
	conn    *amqp.Connection // for what is asked of the broker beside the measurements
	server  *redisserver.Server
	redis   *redis.Client
	missed  []string
}

func newBench(ctx context.Context, c config) (_ *bench, err error) {
	b := &bench{config: c, place: lab.Place{Core: c.workCore, Profile: c.profile}}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.cluster, err = (rabbitmqserver.Config{Wrap: lab.Pin(c.brokerCore)}).Start(ctx); err != nil {
		return nil, err
	}
	b.broker = b.cluster.Nodes[0]
	if b.conn, err = amqp.Dial(b.url()); err != nil {
		return nil, err
	}
	if b.server, err = redisserver.Start(ctx, lab.Pin(c.workCore)...); err != nil {
		return nil, err
	}
	b.redis = redis.NewClient(&redis.Options{Addr: b.server.Addr})
	return b, nil
}

func (b *bench) close() (err error) {
	if b.conn != nil {
		err = b.conn.Close()
	}
	if b.cluster != nil {
		err = errors.Join(err, b.cluster.Close())
	}
	if b.server != nil {
		err = errors.Join(err, b.redis.Close(), b.server.Stop())
	}
	return err
}

func (b *bench) url() string { return "amqp://guest:guest@" + b.broker.Addr + "//" }

// order is an order for a queue of a type, with the addresses of the servers.
func (b *bench) order(side, kind string, results backend) lab.Order {
	o := lab.Order{Side: side, Broker: b.url(), Redis: b.server.Addr, Queue: queue, QueueType: kind, Tasks: b.tasks}
	switch results {
	case redisResults:
		o.Backend = "redis://" + b.server.Addr + "/0"
	case rpcResults:
		o.Backend = "rpc://"
	}
	return o
}

// fill empties both servers and has the tasks of an order sent.
func (b *bench) fill(ctx context.Context, o lab.Order) error {
	if err := b.empty(ctx); err != nil {
		return err
	}
	if _, err := b.place.Produce(ctx, o); err != nil {
		return err
	}
	return b.expect(o.Tasks)
}

// empty leaves no queue and no result.
func (b *bench) empty(ctx context.Context) error {
	err := b.onChannel(func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(queue, false, false, false)
		return err
	})
	return errors.Join(err, b.redis.FlushAll(ctx).Err())
}

// expect makes sure of how many messages wait.
func (b *bench) expect(messages int) error {
	return b.onChannel(func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err == nil && q.Messages != messages {
			err = fmt.Errorf("%d messages are queued; expected %d", q.Messages, messages)
		}
		return err
	})
}

// total is the Erlang that counts all messages of the queue, also those that a consumer holds.
const total = `{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"` + queue + `">>)),
	case amqqueue:get_type(Q) of
		rabbit_quorum_queue ->
			{ok, {_, N}, _} = ra:local_query(amqqueue:get_pid(Q), fun rabbit_fifo:query_messages_total/1), N;
		_ -> [{messages, N}] = rabbit_amqqueue:info(Q, [messages]), N
	end`

// expectDrained makes sure that everything has been acknowledged. The last acknowledgements may still be on their way.
func (b *bench) expectDrained(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	left := "?"
	err := lab.Until(ctx, pollInterval, func() (done bool, err error) {
		n, err := b.broker.Eval(ctx, total)
		if err == nil {
			left = n
		}
		return left == "0", errors.Join(err, ctx.Err())
	})
	if err != nil {
		return fmt.Errorf("%s messages are in the queue although all have been acknowledged: %w", left, err)
	}
	return nil
}

func (b *bench) onChannel(f func(ch *amqp.Channel) error) error {
	ch, err := b.conn.Channel()
	if err != nil {
		return err
	}
	if err := f(ch); err != nil {
		return err
	}
	return ch.Close()
}

// costsOf begins to count what a process and the servers compute.
func (b *bench) costsOf(process *lab.Process) lab.Costs {
	return lab.CostsOf(process.Pid(), b.broker.Pid(), b.server.Pid())
}

// compare runs pairs of Gelery and the minimal program, and says how much of the machine the broker took.
func (b *bench) compare(what string, tasks int, gelery, minimal func() (lab.Run, error)) (lab.Pairs, error) {
	c := lab.Comparison{What: what, Sides: [2]string{"gelery", "minimal"}, Costed: "process+broker+redis", Tasks: tasks,
		Pairs: b.pairs, Out: os.Stdout}
	p, err := c.Run(func(side int) (lab.Run, error) {
		if side == 0 {
			return gelery()
		}
		return minimal()
	})
	if err != nil {
		return p, err
	}
	cores := func(r lab.Run) float64 { return r.Rate * r.Costs[1] / 1e6 }
	m, n := lab.MedianRun(p.A), lab.MedianRun(p.B)
	fmt.Printf("     ratio of the medians %.2f; the broker took %.2f cores with gelery, %.2f with minimal\n",
		m.Rate/n.Rate, cores(m), cores(n))
	return p, nil
}

// describe says under which conditions the figures came about.
func (b *bench) describe(ctx context.Context) string {
	version, _ := b.conn.Properties["version"].(string)
	redis := "?"
	if info, err := b.redis.Info(ctx, "server").Result(); err == nil {
		_, rest, _ := strings.Cut(info, "redis_version:")
		redis, _, _ = strings.Cut(rest, "\r\n")
	}
	placed := "not pinned: the sides and the servers compete for the cores"
	if b.brokerCore+b.workCore != "" {
		placed = fmt.Sprintf("RabbitMQ on core %q, measured process and Redis on core %q", b.brokerCore, b.workCore)
	}
	library := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if strings.HasSuffix(m.Path, "/amqp091-go") {
				library = ", amqp091-go " + m.Version
			}
		}
	}
	return fmt.Sprintf("%s, RabbitMQ %s, redis %s, %d cores%s; %s; load %s", runtime.Version(), version, redis, runtime.NumCPU(),
		library, placed, lab.Load())
}

// require notes a bound that does not hold.
func (b *bench) require(ok bool, format string, args ...any) {
	if !ok {
		b.missed = append(b.missed, fmt.Sprintf(format, args...))
	}
}
