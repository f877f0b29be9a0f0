// Command producer sends one task and prints its result:
//
//	go run ./examples/quickstart/producer redis://localhost:6379/0 redis://localhost:6379/1
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	_ "github.com/gelery/gelery/backends/redis"
	"github.com/gelery/gelery/examples/quickstart/tasks"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/redis"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: producer BROKER-URL BACKEND-URL")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := task.Dial(ctx, task.Config{Broker: args[0], Backend: args[1]})
	if err != nil {
		return err
	}
	defer func() { _ = client.Close(ctx) }()

	res, err := tasks.Add.Send(ctx, client, tasks.AddArgs{X: 2, Y: 3})
	if err != nil {
		return err
	}
	sum, err := res.Get(ctx)
	if err != nil {
		return err
	}
	fmt.Println("2 + 3 =", sum)
	return nil
}
