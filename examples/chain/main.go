// Command chain runs tasks one after another, each with the result of the one before.
//
//	go run ./examples/chain
package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gelery/gelery/examples/site"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

type fetchArgs struct {
	URL string `task:"url"`
}

type countArgs struct {
	Page string `task:"page"`
	Word string `task:"word"`
}

var (
	fetch = task.Define[fetchArgs, string]("pages.fetch")
	count = task.Define[countArgs, int]("pages.count")
)

func main() {
	mux := worker.NewMux()
	worker.Handle(mux, fetch, func(_ context.Context, a fetchArgs) (string, error) {
		if !strings.HasPrefix(a.URL, "https://") {
			return "", errors.New("no such page")
		}
		return "a task is a task is a task", nil
	})
	worker.Handle(mux, count, func(_ context.Context, a countArgs) (int, error) { return strings.Count(a.Page, a.Word), nil })
	site.Run(mux, worker.Config{}, func(ctx context.Context, client *task.Client) error {
		// S is a call with all its arguments, Rest one whose first argument is the result of the step before. Python:
		// fetch.s("https://example.com") | count.s("task")
		result, err := client.Apply(ctx, task.Chain(fetch.S(fetchArgs{"https://example.com"}), count.Rest("task")))
		if err != nil {
			return err
		}
		n, err := result.Get(ctx)
		if err != nil {
			return err
		}
		fmt.Println("the word is there", n, "times")
		page, err := result.Parent(ctx) // the step before
		if err != nil {
			return err
		}
		text, err := page.Get(ctx)
		if err != nil {
			return err
		}
		fmt.Println("the page:", text)

		// When a step fails the later ones do not run, and who waits for the last one gets the error of the one to blame.
		result, err = client.Apply(ctx, task.Chain(fetch.S(fetchArgs{"nowhere"}), count.Rest("task")))
		if err != nil {
			return err
		}
		_, err = result.Get(ctx)
		fmt.Println("failed:", err)
		return nil
	})
}
