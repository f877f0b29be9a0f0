// Command exec-and-http runs programs and calls an HTTP endpoint as tasks, as tasks.yaml says. A stock worker needs the
// file only:
//
//	HOOKS_URL=http://localhost:8080 gelery worker --tasks examples/exec-and-http/tasks.yaml
//
// To show it without a broker, this program brings its own, and the endpoint:
//
//	go run ./examples/exec-and-http
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"sync/atomic"

	"github.com/gelery/gelery/examples/site"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
	"github.com/gelery/gelery/worker/taskfile"
)

func main() {
	var calls atomic.Int64
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			http.Error(w, "not awake yet", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode("hello " + path.Base(r.URL.Path))
	}))
	defer endpoint.Close()
	if err := os.Setenv("HOOKS_URL", endpoint.URL); err != nil {
		log.Panic(err)
	}
	definitions, err := taskfile.Load("examples/exec-and-http/tasks.yaml")
	if err != nil {
		log.Panic(err)
	}
	mux := worker.NewMux()
	for _, d := range definitions {
		mux.Register(d)
	}
	site.Run(mux, worker.Config{}, func(ctx context.Context, client *task.Client) error {
		call := func(name string, args []any, kwargs map[string]any) (any, error) {
			r, err := client.Send(ctx, name, args, kwargs)
			if err != nil {
				return nil, err
			}
			return r.Get(ctx)
		}
		words, err := call("text.count", []any{"to be or not to be"}, nil) // of the JSON text of the call
		fmt.Println("words:", words, err)
		_, err = call("files.exists", []any{"/no/such/file"}, nil)
		fmt.Println("no such file:", errors.Is(err, task.PyError("subprocess.CalledProcessError")))
		greeting, err := call("hooks.greet", nil, map[string]any{"who": "Ada"})
		fmt.Println(greeting, err, "after", calls.Load(), "calls")
		return nil
	})
}
