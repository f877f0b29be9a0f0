package main

import (
	"context"
	"encoding/binary"
	"os"
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
	ledger, err := os.OpenFile(o.Ledger, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = ledger.Close() }()
	say(lab.Report{Started: time.Now().UnixNano()})
	return lab.Work(ctx, o, func(mux *worker.Mux) {
		worker.Handle(mux, due, func(_ context.Context, a dueArgs) (any, error) {
			late := time.Now().UnixNano() - a.ETA
			record := binary.LittleEndian.AppendUint64(make([]byte, 0, recordSize), uint64(a.N))
			_, err := ledger.Write(binary.LittleEndian.AppendUint64(record, uint64(late)))
			return nil, err
		})
	})
}
