// Command worker is a whole worker with the gelery command line:
//
//	go run ./examples/quickstart/worker worker --broker redis://localhost:6379/0 --result-backend redis://localhost:6379/1
package main

import (
	"context"

	"github.com/gelery/gelery/cli"
	"github.com/gelery/gelery/examples/quickstart/tasks"
	"github.com/gelery/gelery/worker"
)

func main() {
	mux := worker.NewMux()
	worker.Handle(mux, tasks.Add, func(_ context.Context, a tasks.AddArgs) (int, error) { return a.X + a.Y, nil })
	cli.Main(mux)
}
