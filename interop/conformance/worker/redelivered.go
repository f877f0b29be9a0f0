package main

import (
	"context"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// redelivered are the tasks that reject their message the first time they get it, and are acknowledged late.
func redelivered(mux *worker.Mux) {
	late := task.AckLate()
	mux.Func(name("reject_then_succeed"), func(ctx context.Context) (string, error) {
		if info, _ := task.FromContext(ctx); !info.Redelivered {
			return "", task.Reject(nil, true)
		}
		return "second-pass", nil
	}, late)
	mux.Func(name("store_success_then_reject"), func(ctx context.Context) (string, error) {
		info, _ := task.FromContext(ctx)
		if info.Redelivered {
			return "dedup-pass", nil
		}
		meta := &protocol.ResultMeta{TaskID: info.ID, Status: protocol.Success, Result: "first-pass"}
		if err := info.Client.Backend().Store(ctx, []*protocol.ResultMeta{meta}); err != nil {
			return "", err
		}
		return "", task.Reject(nil, true)
	}, late)
}
