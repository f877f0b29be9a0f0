// Command delayed measures tasks that are to run later:
//
//	go run ./cmd/delayed                                  # a million, 2,000 of them due a second
//	go run ./cmd/delayed -tasks 20000 -rate 2000
//	go run ./cmd/delayed -broker quorum -tasks 20000 -rate 500
//
// It starts a server of its own and one worker, then sends all tasks, each with an eta of its own, the first one due
// after the time given by -lead. The worker notes each run in a file, with its lateness: from the eta until the task's
// code begins. Its memory (VmRSS) is read ten times a second. Nothing is pinned: sender, worker and server compete for
// the machine's cores.
//
// Exit codes: 0 every bound holds, 1 one does not, or a task ran early, twice or not at all; 2 wrong usage.
package main

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gelery/gelery/benchmarks/internal/lab"
)

var sides = map[string]lab.Side{"sender": send, "worker": work}

// brokers are what can be measured: Redis, and RabbitMQ with queues of a type.
var brokers = []string{"redis", "classic", "quorum"}

// config is the command line.
type config struct {
	broker      string
	tasks       int
	rate        int
	lead        time.Duration
	concurrency int
	maxMemory   int // MiB
	maxLate     time.Duration
	timeout     time.Duration
}

func main() { lab.Main("delayed", sides, parse, measure) }

// Limit implements lab.Config.
func (c config) Limit() time.Duration { return c.timeout }

func parse(args []string) (config, error) {
	var c config
	f := flag.NewFlagSet("delayed", flag.ContinueOnError)
	f.StringVar(&c.broker, "broker", brokers[0], "one of "+strings.Join(brokers, ", ")+"; the last two are types of queues of RabbitMQ")
	f.IntVar(&c.tasks, "tasks", 1_000_000, "how many tasks")
	f.IntVar(&c.rate, "rate", 2000, "how many are due a second")
	f.DurationVar(&c.lead, "lead", 0, "from the first send to the first eta (default: a second for each 10,000 tasks, 5 s at least)")
	f.IntVar(&c.concurrency, "concurrency", 10, "slots of the worker")
	f.IntVar(&c.maxMemory, "max-memory", 150, "MiB that the worker may have resident")
	f.DurationVar(&c.maxLate, "max-late", time.Second, "greatest lateness of any task")
	f.DurationVar(&c.timeout, "timeout", time.Hour, "give up after")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if c.lead == 0 {
		c.lead = max(5*time.Second, time.Duration(c.tasks)*time.Second/10_000)
	}
	if !slices.Contains(brokers, c.broker) || c.tasks < 100 || c.rate < 1 || c.concurrency < 1 || c.lead < time.Second || f.NArg() > 0 {
		return c, fmt.Errorf("expected no arguments, -broker as one of %s, -tasks from 100, -rate and -concurrency from 1, -lead from 1s",
			strings.Join(brokers, ", "))
	}
	return c, nil
}
