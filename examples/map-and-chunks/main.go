// Command map-and-chunks calls a task for many items with few messages.
//
//	go run ./examples/map-and-chunks
package main

import (
	"context"
	"fmt"

	"github.com/gelery/gelery/examples/site"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

func main() {
	mux := worker.NewMux()
	mux.Func("math.square", func(x int) (int, error) { return x * x, nil })
	mux.Func("math.add", func(x, y int) (int, error) { return x + y, nil })
	site.Run(mux, worker.Config{}, func(ctx context.Context, client *task.Client) error {
		for _, workflow := range []struct {
			name string
			task.Signature
		}{
			{"map", task.Map(task.S("math.square"), 1, 2, 3)},                                        // one message
			{"starmap", task.Starmap(task.S("math.add"), []int{1, 10}, []int{2, 20})},                // one message
			{"chunks", task.Chunks(task.S("math.add"), 2, []int{1, 10}, []int{2, 20}, []int{3, 30})}, // a message for two items
		} {
			result, err := client.Apply(ctx, workflow.Signature)
			if err != nil {
				return err
			}
			list, err := result.Get(ctx)
			if err != nil {
				return err
			}
			fmt.Println(workflow.name, list)
		}
		return nil
	})
}
