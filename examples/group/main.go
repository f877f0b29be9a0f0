// Command group runs tasks side by side and waits for all of them with one subscription.
//
//	go run ./examples/group
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/gelery/gelery/examples/site"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

type priceArgs struct {
	Item string `task:"item"`
}

var price = task.Define[priceArgs, int]("shop.price")

func main() {
	prices := map[string]int{"tea": 4, "cake": 6, "jam": 3}
	mux := worker.NewMux()
	worker.Handle(mux, price, func(_ context.Context, a priceArgs) (int, error) {
		if cents, ok := prices[a.Item]; ok {
			return cents, nil
		}
		return 0, errors.New("we have no " + a.Item)
	})
	ask := func(item string) task.Signature { return price.S(priceArgs{item}) }
	site.Run(mux, worker.Config{}, func(ctx context.Context, client *task.Client) error {
		result, err := client.Apply(ctx, task.Group(ask("tea"), ask("cake"), ask("jam")))
		if err != nil {
			return err
		}
		group, _ := task.GroupResultOf[int](result)
		all, err := group.Join(ctx) // in the order of the members
		if err != nil {
			return err
		}
		fmt.Println("prices:", all)

		// Join ends at the first failure; JoinAll tells what became of each member, AsCompleted tells it at once.
		result, err = client.Apply(ctx, task.Group(ask("tea"), ask("salt")))
		if err != nil {
			return err
		}
		group, _ = task.GroupResultOf[int](result)
		outcomes, err := group.JoinAll(ctx)
		if err != nil {
			return err
		}
		for _, o := range outcomes {
			fmt.Println(o.Index, o.Value, o.Err)
		}
		total := 0
		for o, err := range group.AsCompleted(ctx) {
			if err == nil {
				total += o.Value
			}
		}
		fmt.Println("all we have costs", total)
		return nil
	})
}
