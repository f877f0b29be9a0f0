//go:build unix

package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/transport"
)

// versions are the Celery versions Gelery promises to work with.
var versions = []string{"5.2", "5.3", "5.4", "5.5", "5.6"}

// Version is one Celery version with its virtual environment.
type Version struct {
	Name string // "5.6"; "monitoring"
	bin  string // folder of its programs
}

// AtLeast compares with another version of the same form.
func (v Version) AtLeast(name string) bool { return v.Name >= name }

// ForEachVersion runs f as one parallel subtest per Celery version. A version without its virtual environment is
// skipped, or fails with GELERY_TEST_PYTHON=required.
func ForEachVersion(t *testing.T, f func(t *testing.T, v Version)) {
	t.Helper()
	for _, name := range versions {
		t.Run("celery-"+name, func(t *testing.T) {
			t.Parallel()
			f(t, FindVersion(t, name))
		})
	}
}

// FindVersion returns one Celery version, or ends the test as ForEachVersion does.
func FindVersion(t testing.TB, name string) Version {
	t.Helper()
	return findEnvironment(t, name, "celery-"+name)
}

// FindMonitoring returns the environment of what monitors clusters, with the newest Celery: Flower, celery-exporter,
// OpenTelemetry, Sentry. Without it the test ends as with FindVersion.
func FindMonitoring(t testing.TB) Version {
	t.Helper()
	return findEnvironment(t, "monitoring", "monitoring")
}

func findEnvironment(t testing.TB, name, folder string) Version {
	t.Helper()
	v := Version{Name: name, bin: filepath.Join(root(t), ".venv", folder, "bin")}
	// The stamp is written last: without it the environment is half made.
	if _, err := os.Stat(filepath.Join(v.bin, "..", "stamp")); err != nil {
		if os.Getenv("GELERY_TEST_PYTHON") == "required" {
			t.Fatalf("no Python environment %s (%v), but GELERY_TEST_PYTHON=required; run scripts/setup.sh", folder, err)
		}
		t.Skipf("no Python environment %s; scripts/setup.sh makes it", folder)
	}
	return v
}

// Settings set up the Python application. Zero values are its defaults; see python/app.py.
type Settings struct {
	Broker, Backend  string
	Queue            string
	TaskSerializer   string
	ResultSerializer string
	AcceptContent    []string
	Compression      string
	Protocol         int
	Visibility       time.Duration
	KeyPrefix        string
	AckLate          bool
	TrackStarted     bool
	ResultExtended   bool
	Prefetch         int
	Queues           []transport.Queue // task_queues
	Conf             map[string]any    // further settings under their own names
}

// withoutCelery drops from an environment what would set up a worker or Python behind the test's back.
func withoutCelery(env []string) []string {
	return slices.DeleteFunc(env, func(e string) bool {
		return strings.HasPrefix(e, "CELERY") || strings.HasPrefix(e, "PYTHON")
	})
}

// environment is the process's own and the settings.
func (s Settings) environment(t testing.TB) []string {
	env := append(withoutCelery(os.Environ()), "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH="+pythonDir(t))
	add := func(name, v string) {
		env = append(env, name+"="+v) // also when empty: an inherited value must not show through
	}
	number := func(n int) string {
		if n == 0 {
			return ""
		}
		return strconv.Itoa(n)
	}
	flag := func(on bool) string { return map[bool]string{true: "1"}[on] }
	add("BROKER_URL", s.Broker)
	add("RESULT_BACKEND", s.Backend)
	add("QUEUE", s.Queue)
	add("TASK_SERIALIZER", s.TaskSerializer)
	add("RESULT_SERIALIZER", s.ResultSerializer)
	add("ACCEPT_CONTENT", strings.Join(s.AcceptContent, ","))
	add("RESULT_ACCEPT_CONTENT", "")
	add("COMPRESSION", s.Compression)
	add("PROTOCOL", number(s.Protocol))
	add("VISIBILITY_TIMEOUT", number(int(s.Visibility.Seconds())))
	add("KEY_PREFIX", s.KeyPrefix)
	add("ACKS_LATE", flag(s.AckLate))
	add("TRACK_STARTED", flag(s.TrackStarted))
	add("RESULT_EXTENDED", flag(s.ResultExtended))
	add("IGNORE_RESULT", "")
	add("PREFETCH", number(s.Prefetch))
	add("RESULT_EXPIRES", "")
	for name, v := range map[string]any{"QUEUES": s.Queues, "CONF": s.Conf} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		add(name, strings.TrimPrefix(string(text), "null"))
	}
	return env
}

// Command makes a command of the version's environment: Command(t, s, "celery", "-A", "app", "inspect", "ping").
func (v Version) Command(t testing.TB, s Settings, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(v.bin, program), args...)
	cmd.Dir = pythonDir(t)
	cmd.Env = s.environment(t)
	return cmd
}

// StartWorker starts a Python worker of the application on Settings.Queue and returns when it is ready. Pool is
// Celery's -P: "solo", "threads", "prefork". Args are added to its command line.
func (v Version) StartWorker(t testing.TB, s Settings, pool string, concurrency int, args ...string) *Process {
	t.Helper()
	queue := s.Queue
	if queue == "" {
		queue = "celery"
	}
	args = append([]string{
		"-A", "app", "worker", "-l", "info", "-P", pool, "-c", strconv.Itoa(concurrency), "-Q", queue,
		"-n", "py" + strconv.Itoa(os.Getpid()) + "-" + queue + "@%h", "--without-mingle", "--without-gossip",
	}, args...)
	p := Start(t, "celery-"+v.Name+"-worker", v.Command(t, s, "celery", args...))
	p.WaitFor(t, `\bready\.`, time.Minute)
	return p
}

// root is the repository's root: the first folder above with a go.mod.
func root(t testing.TB) string {
	t.Helper()
	dir, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var findRoot = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			err = errors.New("no go.mod in any folder above")
		}
		dir = parent
	}
	return "", fmt.Errorf("the repository's root: %w", err)
})

func pythonDir(t testing.TB) string { return filepath.Join(root(t), "interop", "python") }
