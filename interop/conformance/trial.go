//go:build unix

package conformance

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/interop"
)

// patience bounds the start and the stop of a worker, also on a busy machine.
const patience = 2 * time.Minute

// Trial is the suite of one version, run once against one worker.
type Trial struct {
	interop.Version
	interop.Stack
	Control  bool          // a Python worker of the version is judged, not Gelery's
	Short    bool          // the tests of the short form alone
	Tests    string        // of those, what this expression of pytest's -k chooses; all if it is empty
	Limit    time.Duration // of a test; its own, if that is shorter. Default five minutes
	Patience time.Duration // of the whole run

	t       testing.TB
	broker  string
	backend string
	ledger  string // port of the Redis that the tasks write to
	worker  *interop.Process
}

// worker's name in reports.
func (r *Trial) judged() string {
	if r.Control {
		return "python"
	}
	return "go"
}

func (r *Trial) node() string { return r.judged() + "@conformance" }

// Run starts servers and a worker of its own, runs the suite and returns what came of it.
func (r *Trial) Run(t testing.TB) Report {
	t.Helper()
	r.t = t
	suite := filepath.Join(environments(t), "suite-"+r.Version.Name)
	tools := filepath.Join(environments(t), "suite-tools")
	for _, dir := range []string{suite, tools} {
		needs(t, dir)
	}
	r.open()
	r.start(suite, tools)
	resets, reset := resetServer(t)
	results := filepath.Join(t.TempDir(), "results")
	limit := r.Limit
	if limit == 0 {
		limit = 5 * time.Minute
	}
	settings, err := json.Marshal(map[string]any{
		"table": here(t, "tests.tsv"), "version": r.Version.Name, "stack": r.Stack.String(), "results": results, "short": r.Short,
		"node": r.node(), "pid": r.worker.Pid(), "reset": reset, "limit": limit.Seconds(), "reruns": 1, "redis_port": json.Number(r.ledger),
	})
	if err != nil {
		t.Fatal(err)
	}
	args := []string{
		"-m", "pytest", "-p", "foreign.plugin", "-p", "no:cacheprovider", "-c", os.DevNull, "--rootdir", suite, "-o", "python_classes=test_*",
		"-W", "ignore", "--tb=short", "-q", "-rN",
	}
	if r.Tests != "" {
		args = append(args, "-k", r.Tests)
	}
	pytest := r.command(suite, tools, "python", append(args, modules(t, suite)...)...)
	pytest.Dir = suite
	pytest.Env = append(pytest.Env, "FOREIGN="+string(settings))
	began := time.Now()
	p := interop.Start(t, "suite-"+r.Version.Name, pytest)
	r.await(p, resets, suite, tools)
	report, err := readReport(results)
	if err != nil {
		t.Fatalf("the suite has left no verdicts: %v\n%s", err, p.Output.Tail(40))
	}
	report.Took = time.Since(began)
	return report
}

// await waits for the end of the suite, and starts the worker anew whenever a test asks for it.
func (r *Trial) await(p *interop.Process, resets <-chan chan<- struct{}, suite, tools string) {
	r.t.Helper()
	timer := time.NewTimer(r.Patience)
	defer timer.Stop()
	for {
		select {
		case <-p.Exited():
			return
		case done := <-resets:
			r.worker.Stop(r.t, patience)
			r.forget()
			r.start(suite, tools)
			close(done)
		case <-timer.C:
			r.t.Errorf("the suite has not ended in %v", r.Patience)
			p.Kill()
			return
		}
	}
}

// open makes the servers.
func (r *Trial) open() {
	s := r.Stack.Open(r.t)
	r.broker, r.backend = s.Broker, s.Backend
	if s.Broker[:6] == "redis:" {
		r.backend = s.Broker // a test looks for what the backend keeps in the database where the tasks write
	}
	ledger := r.backend
	if r.Stack.Backend == "rpc" {
		ledger = testservice.Redis(r.t)
	}
	u, err := url.Parse(ledger)
	if err != nil {
		r.t.Fatal(err)
	}
	r.ledger = u.Port()
}

// start starts the worker that is judged.
func (r *Trial) start(suite, tools string) {
	cmd := r.command(suite, tools, "celery", "-A", "control", "worker", "-P", "prefork", "-c", "1", "-n", r.node(), "-l", "INFO",
		"--without-gossip", "--without-mingle", "--without-heartbeat")
	if !r.Control {
		// Celery's defaults, where Gelery has others.
		args := []string{"worker", "-b", r.broker, "--result-backend", r.backend, "-c", "1", "-n", r.node(), "-l", "INFO",
			"--result-extended",
			"--prefetch-multiplier", "5", // Celery counts what is acknowledged no more, Gelery what runs
			"--", "task.acks_late=false"}
		if r.Stack.Backend != "rpc" {
			args = append(args, "worker.deduplicate_successful_tasks=true")
		}
		program := exec.Command(interop.Build(r.t, "interop/conformance/worker"), args...)
		program.Env = cmd.Env
		cmd = program
	}
	r.worker = interop.Start(r.t, r.judged()+"-worker", cmd)
	r.worker.WaitFor(r.t, `\bready\.`, patience)
}

// command is a Python program with the suite, its tools and the harness on its path.
func (r *Trial) command(suite, tools, program string, args ...string) *exec.Cmd {
	cmd := r.Version.Command(r.t, interop.Settings{}, program, args...)
	python := here(r.t, "python")
	backend := r.backend
	if r.Stack.Backend == "rpc" && program == "python" {
		backend = "rpc" // the suite compares with the bare word
	}
	cmd.Env = append(cmd.Env, "TEST_BROKER="+r.broker, "TEST_BACKEND="+backend, "REDIS_HOST=127.0.0.1", "REDIS_PORT="+r.ledger,
		"PYTHONPATH="+strings.Join([]string{python, suite, tools}, string(os.PathListSeparator)))
	return cmd
}

// forget empties what Gelery's workers keep in a Redis broker over a restart.
func (r *Trial) forget() {
	if r.Stack.Broker != "redis" {
		return
	}
	options, err := redis.ParseURL(r.broker)
	if err != nil {
		r.t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	if err := client.Del(r.t.Context(), "_gelery.revoked", "_gelery.revoked_stamps").Err(); err != nil {
		r.t.Fatal(err)
	}
}

// resetServer answers a POST when what it has put into resets is closed.
func resetServer(t testing.TB) (resets <-chan chan<- struct{}, address string) {
	asked := make(chan chan<- struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		done := make(chan struct{})
		select {
		case asked <- done:
		case <-r.Context().Done():
			return
		}
		select {
		case <-done:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	return asked, server.URL
}

// needs ends the test where what scripts/setup.sh fetches is missing, as interop.FindVersion does.
func needs(t testing.TB, dir string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, "stamp")); err != nil {
		if os.Getenv("GELERY_TEST_PYTHON") == "required" {
			t.Fatalf("%v, but GELERY_TEST_PYTHON=required; run scripts/setup.sh", err)
		}
		t.Skipf("%v; scripts/setup.sh fetches it", err)
	}
}

// here is a path below this package's folder, in which its tests run.
func here(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// environments is the folder .venv, by its real name: pytest names tests by it.
func environments(t testing.TB) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(here(t, filepath.Join("..", "..", ".venv")))
	if err != nil {
		return here(t, filepath.Join("..", "..", ".venv")) // it is missing, as needs will tell
	}
	return path
}
