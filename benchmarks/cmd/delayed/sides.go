package main

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/gelery/gelery/benchmarks/internal/lab"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/rabbitmq"
	_ "github.com/gelery/gelery/transport/redis"
	"github.com/gelery/gelery/worker"
)

const (
	sendBatch    = 100 // calls sent together
	sendTogether = 4   // such batches under way
	recordSize   = 16  // bytes of a run in the ledger: the task's number, its lateness in nanoseconds
)

// dueArgs are a task's number and its eta in Unix nanoseconds.
type dueArgs struct {
	N   int   `json:"n" task:"n"`
	ETA int64 `json:"eta" task:"due"`
}

var due = task.Define[dueArgs, any]("bench.due")

// send sends all tasks in the order of their etas.
func send(ctx context.Context, o lab.Order, say func(lab.Report)) error {
	client, err := lab.Dial(ctx, o)
	if err != nil {
		return err
	}
	begun := time.Now()
	batches := o
	batches.Tasks, batches.Producers = (o.Tasks+sendBatch-1)/sendBatch, sendTogether
	err = lab.Share(batches, func(i int) error {
		calls := make([]task.Call, 0, sendBatch)
		for n := i * sendBatch; n < min((i+1)*sendBatch, o.Tasks); n++ {
			eta := time.Unix(0, o.From).Add(time.Duration(n) * time.Second / time.Duration(o.Rate))
			calls = append(calls, due.Call(dueArgs{n, eta.UnixNano()}, task.ETA(eta)))
		}
		_, err := client.SendBatch(ctx, calls)
		return err
	})
	if err != nil {
		return err
	}
	say(lab.Report{Seconds: time.Since(begun).Seconds()})
	return client.Close(context.WithoutCancel(ctx))
}

// work runs a worker that notes each run.
func work(ctx context.Context, o lab.Order, say func(lab.Report)) error {
	file, err := os.OpenFile(o.Ledger, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	l := openLedger(file)
	say(lab.Report{Started: time.Now().UnixNano()})
	err = lab.Work(ctx, o, func(mux *worker.Mux) {
		worker.Handle(mux, due, func(_ context.Context, a dueArgs) (any, error) {
			l.note(a.N, time.Since(time.Unix(0, a.ETA)))
			return nil, nil
		})
	})
	return errors.Join(err, l.close())
}

// ledger writes runs to a file, a moment later, so that no task waits for the disk.
type ledger struct {
	records chan [recordSize]byte
	written sync.WaitGroup
	err     error
}

func openLedger(file *os.File) *ledger {
	l := &ledger{records: make(chan [recordSize]byte, 16_384)}
	l.written.Go(func() {
		for r := range l.records {
			if l.err == nil {
				_, l.err = file.Write(r[:])
			}
		}
		l.err = errors.Join(l.err, file.Close())
	})
	return l
}

func (l *ledger) note(n int, late time.Duration) {
	var r [recordSize]byte
	binary.LittleEndian.PutUint64(r[:8], uint64(n))
	binary.LittleEndian.PutUint64(r[8:], uint64(late))
	l.records <- r
}

func (l *ledger) close() error {
	close(l.records)
	l.written.Wait()
	return l.err
}
