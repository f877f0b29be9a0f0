// Command chord runs a task once all tasks of a group are done, with the list of their results.
//
//	go run ./examples/chord
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/gelery/gelery/examples/site"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

type votesArgs struct {
	District string `task:"district"`
}

type sumArgs struct {
	Votes []int `task:"votes"`
}

var (
	votes = task.Define[votesArgs, int]("election.votes")
	sum   = task.Define[sumArgs, int]("election.sum")
)

func main() {
	mux := worker.NewMux()
	worker.Handle(mux, votes, func(_ context.Context, a votesArgs) (int, error) {
		if a.District == "" {
			return 0, errors.New("a district without a name")
		}
		return 100 * len(a.District), nil
	})
	worker.Handle(mux, sum, func(_ context.Context, a sumArgs) (int, error) {
		total := 0
		for _, n := range a.Votes {
			total += n
		}
		return total, nil
	})
	of := func(district string) task.Signature { return votes.S(votesArgs{district}) }
	site.Run(mux, worker.Config{}, func(ctx context.Context, client *task.Client) error {
		result, err := client.Apply(ctx, task.Chord(task.Group(of("north"), of("west"), of("south")), sum.Rest()))
		if err != nil {
			return err
		}
		total, err := result.Get(ctx)
		if err != nil {
			return err
		}
		fmt.Println("votes:", total)

		// The body does not run when a part fails. Who waits for it gets the error of that part.
		result, err = client.Apply(ctx, task.Chord(task.Group(of("north"), of("")), sum.Rest()))
		if err != nil {
			return err
		}
		_, err = result.Get(ctx)
		fmt.Println("failed:", err)
		return nil
	})
}
