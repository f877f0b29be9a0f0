// Command replace lets a task be replaced, while it runs, by a workflow that is made of what it has found out.
//
//	go run ./examples/replace
package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/gelery/gelery/examples/site"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

type bookArgs struct {
	Text string `task:"text"`
}

var (
	translate = task.Define[bookArgs, []string]("books.translate")
	sentence  = task.Define[bookArgs, string]("books.sentence")
)

func main() {
	mux := worker.NewMux()
	worker.Handle(mux, translate, func(_ context.Context, a bookArgs) ([]string, error) {
		var parts []task.Signature
		for s := range strings.SplitSeq(a.Text, ". ") {
			parts = append(parts, sentence.S(bookArgs{s}))
		}
		return nil, task.Replace(task.Group(parts...))
	})
	worker.Handle(mux, sentence, func(_ context.Context, a bookArgs) (string, error) { return strings.ToUpper(a.Text), nil })
	site.Run(mux, worker.Config{}, func(ctx context.Context, client *task.Client) error {
		// Whoever waits for the task gets what its replacement returns.
		book, err := translate.Send(ctx, client, bookArgs{"It was late. Nobody came"})
		if err != nil {
			return err
		}
		pages, err := book.Get(ctx)
		if err != nil {
			return err
		}
		fmt.Println(strings.Join(pages, " | "))
		return nil
	})
}
