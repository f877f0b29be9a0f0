package interop

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestTaskFile has Python call a program and an endpoint: tasks of a stock worker without a line of Go.
func TestTaskFile(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ok" {
			http.Error(w, "try later", http.StatusTeapot)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "tasks.yaml")
	if err := os.WriteFile(file, []byte(`tasks:
- name: file.cat
  command: [cat]
- name: file.fail
  command: [sh, -c, "echo out of paper >&2; exit 4"]
- name: file.call
  http: {url: "`+server.URL+`/{{args.0}}"}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	ForEachCrossing(t, []Stack{RedisStack, RabbitMQRPCStack}, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		s.Queue = goQueue
		StartGelery(t, s, "--tasks", file)
		c = c.To(PythonToGo)
		driver := c.StartDriver(t, s)
		c.Cell(t, "task file: program", func(t *testing.T) {
			got := run(t, driver, Command{Task: "file.cat", Args: []any{1, "ü"}, Kwargs: map[string]any{"x": nil}})
			want := `{'args': [1, 'ü'], 'id': '` + got.ID + `', 'kwargs': {'x': None}, 'retries': 0, 'task': 'file.cat'}`
			if got.State != "SUCCESS" || got.Got != want {
				t.Errorf("got %s %s, want %s", got.State, got.Got, want)
			}
		})
		c.Cell(t, "task file: exit code", func(t *testing.T) {
			got := run(t, driver, Command{Task: "file.fail"})
			if got.State != "FAILURE" || got.Exception == nil || !slices.Contains(got.Exception.Bases, "SubprocessError") ||
				len(got.Exception.Args) == 0 {
				t.Fatalf("got %s %s, want subprocess.CalledProcessError", got.State, got.Got)
			}
		})
		c.Cell(t, "task file: endpoint", func(t *testing.T) {
			got := run(t, driver, Command{Task: "file.call", Args: []any{"ok"}})
			want := `{'args': ['ok'], 'id': '` + got.ID + `', 'kwargs': {}, 'retries': 0, 'task': 'file.call'}`
			if got.State != "SUCCESS" || got.Got != want {
				t.Errorf("got %s %s, want %s", got.State, got.Got, want)
			}
		})
		c.Cell(t, "task file: status", func(t *testing.T) {
			got := run(t, driver, Command{Task: "file.call", Args: []any{"else"}})
			if got.State != "FAILURE" || got.Exception == nil || got.Exception.Type != "HTTPException" {
				t.Errorf("got %s %s, want http.client.HTTPException", got.State, got.Got)
			}
		})
	})
}
