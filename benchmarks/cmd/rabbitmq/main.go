// Command rabbitmq measures Gelery on RabbitMQ beside the least that a program has to do there with amqp091-go, in turn
// and under the same conditions:
//
//	go run ./cmd/rabbitmq                                       # everything, as a check
//	go run ./cmd/rabbitmq -only drain -types quorum -pairs 3
//
// It starts a RabbitMQ and a redis-server of its own. Each side runs as a process of its own (this program again). Pairs
// are interleaved, A B A B, so that whatever else the machine does strikes both; a ratio is taken within a pair, and the
// median over the pairs is the answer. All of it on classic and on quorum queues:
//
//	publish  one producer process, every message confirmed. Gelery: Client.SendBatch and Task.Send. Minimal: the message
//	         that Gelery has sent, again and again, on one channel, with as many unconfirmed as Gelery allows itself
//	drain    a queue filled beforehand with add(x, y). Gelery: a worker, until the last result is stored in Redis; then
//	         every result is read and checked. Minimal: a consumer with the same prefetch that decodes the body's JSON and
//	         acknowledges, message by message; it stores nothing
//	latency  Gelery alone: from Send to the pushed result at a steady rate, with Redis and with rpc results
//	memory   Gelery alone: VmRSS of an idle worker
//
// Exit codes: 0 every bound holds, 1 one does not or something is missing, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gelery/gelery/benchmarks/internal/lab"
)

// sides are what a measured process can be.
var sides = map[string]lab.Side{
	"gelery-worker":   lab.Worker,
	"gelery-publish":  lab.Enqueue(),
	"gelery-latency":  lab.Latency,
	"minimal-publish": minimalPublish,
	"minimal-consume": minimalConsume,
}

// config is the command line.
type config struct {
	only        []string
	types       []string
	pairs       int
	concurrency []int
	tasks       int
	minPublish  float64
	minDrain    float64
	rate        int
	seconds     int
	profile     string
	brokerCore  string
	workCore    string
	timeout     time.Duration
}

var (
	all        = []string{"publish", "drain", "latency", "memory"}
	queueTypes = []string{"classic", "quorum"}
)

func main() { lab.Main("rabbitmq", sides, parse, measure) }

// Limit implements lab.Config.
func (c config) Limit() time.Duration { return c.timeout }

func parse(args []string) (config, error) {
	var c config
	var only, types, concurrency string
	f := flag.NewFlagSet("rabbitmq", flag.ContinueOnError)
	f.StringVar(&only, "only", strings.Join(all, ","), "what to measure")
	f.StringVar(&types, "types", strings.Join(queueTypes, ","), "types of queues")
	f.IntVar(&c.pairs, "pairs", 7, "interleaved pairs of each comparison")
	f.StringVar(&concurrency, "concurrency", "10,100", "concurrencies of the drain")
	f.IntVar(&c.tasks, "tasks", 50_000, "tasks of one publish or drain run; a tenth of it where each waits for the one before")
	f.Float64Var(&c.minPublish, "min-publish", 0.8, "least median ratio of publish rates")
	f.Float64Var(&c.minDrain, "min-drain", 0.7, "least median ratio of drain rates")
	f.IntVar(&c.rate, "rate", 200, "tasks a second of the latency runs")
	f.IntVar(&c.seconds, "seconds", 10, "length of a latency run")
	f.StringVar(&c.profile, "profile", "", "folder for CPU profiles of the measured processes")
	f.StringVar(&c.brokerCore, "broker-core", "", "core to pin RabbitMQ to; \"\": none")
	f.StringVar(&c.workCore, "work-core", "", "core to pin the measured process and redis-server to; \"\": none")
	f.DurationVar(&c.timeout, "timeout", time.Hour, "give up after")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	var err error
	if c.only, err = choose("only", only, all); err != nil {
		return c, err
	}
	if c.types, err = choose("types", types, queueTypes); err != nil {
		return c, err
	}
	for text := range strings.SplitSeq(concurrency, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return c, fmt.Errorf("-concurrency %s: expected numbers from 1", text)
		}
		c.concurrency = append(c.concurrency, n)
	}
	if c.pairs < 1 || c.tasks < 100 || c.rate < 1 || c.seconds < 1 || f.NArg() > 0 {
		return c, errors.New("expected no arguments, -pairs, -rate and -seconds from 1, -tasks from 100")
	}
	if (c.brokerCore != "" || c.workCore != "") && !lab.CanPin() {
		return c, errors.New("cannot pin to a core: expected taskset, and more than one core")
	}
	return c, nil
}

// choose reads a list of which every element is one of some.
func choose(name, text string, from []string) ([]string, error) {
	list := strings.Split(text, ",")
	for _, s := range list {
		if !slices.Contains(from, s) {
			return nil, fmt.Errorf("-%s %s: expected some of %s", name, s, strings.Join(from, ","))
		}
	}
	return list, nil
}

// measure measures what was asked for and returns the bounds that do not hold.
func measure(ctx context.Context, c config) (missed []string, err error) {
	b, err := newBench(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	fmt.Println(b.describe(ctx))
	for _, name := range c.only {
		for _, kind := range c.types {
			switch name {
			case "publish":
				err = b.comparePublish(ctx, kind)
			case "drain":
				for _, n := range c.concurrency {
					err = errors.Join(err, b.compareDrain(ctx, kind, n))
				}
			case "latency":
				err = errors.Join(b.measureLatency(ctx, kind, redisResults), b.measureLatency(ctx, kind, rpcResults))
			}
			if err != nil {
				return b.missed, err
			}
		}
		if name == "memory" {
			if err := b.measureMemory(ctx); err != nil {
				return b.missed, err
			}
		}
	}
	return b.missed, nil
}
