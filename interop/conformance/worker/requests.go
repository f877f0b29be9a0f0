package main

import (
	"context"
	"fmt"

	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// requests are the tasks that tell something of their own call.
func requests(mux *worker.Mux) {
	ids := func(ctx context.Context, i any) []any {
		info, _ := task.FromContext(ctx)
		return []any{orNone(info.RootID), orNone(info.ParentID), i}
	}
	mux.Func(name("ids"), func(ctx context.Context, i any) ([]any, error) { return ids(ctx, i), nil }, task.Params("i"))
	mux.Func(name("collect_ids"), func(ctx context.Context, before, i any) ([]any, error) {
		return []any{before, ids(ctx, i)}, nil
	}, task.Params("res", "i"))
	mux.Func(name("return_priority"), func(ctx context.Context, _ ...any) (string, error) {
		info, _ := task.FromContext(ctx)
		return fmt.Sprint("Priority: ", info.Properties.Priority), nil
	})
	mux.Func(name("return_properties"), properties)
	mux.Func(name("return_exception"), func(err any) ([]any, error) { return []any{err, true}, nil }, task.Params("e"))
}

func orNone(id string) any {
	if id == "" {
		return nil
	}
	return id
}

// properties are those of the message, as Python's request has them.
func properties(ctx context.Context) (map[string]any, error) {
	info, _ := task.FromContext(ctx)
	p := info.Properties
	all := map[string]any{
		"correlation_id": p.CorrelationID, "reply_to": p.ReplyTo, "delivery_mode": p.DeliveryMode, "priority": p.Priority,
		"delivery_info": map[string]any{"exchange": p.DeliveryInfo.Exchange, "routing_key": p.DeliveryInfo.RoutingKey},
	}
	for _, extra := range p.Extra {
		v, err := serialization.DecodeJSON(extra.Value)
		if err != nil {
			return nil, fmt.Errorf("property %s: %w", extra.Name, err)
		}
		all[extra.Name] = v
	}
	return all, nil
}
