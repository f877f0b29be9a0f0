// Command worker is Gelery's worker with the tasks of Celery's integration suite (t/integration/tasks.py): every name of
// it, with what the suite can see of its behaviour, written as one writes tasks in Go.
//
//	go run ./interop/conformance/worker worker -b redis://localhost:6379/0 --result-backend redis://localhost:6379/1 \
//		--result-extended -- task.acks_late=false
//
// The tasks that leave traces in Redis do so at REDIS_HOST and REDIS_PORT, in database 0, as the suite's do.
package main

import (
	"github.com/gelery/gelery/cli"
	"github.com/gelery/gelery/worker"
)

// module is what the suite's task names and classes begin with.
const module = "t.integration.tasks"

func name(task string) string { return module + "." + task }

func main() {
	mux := worker.NewMux()
	arithmetic(mux)
	requests(mux)
	failing(mux)
	retried(mux)
	redelivered(mux)
	traces(mux)
	canvas(mux)
	signatures(mux)
	cli.Main(mux)
}
