package settings

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
	"github.com/gelery/gelery/worker"
)

// file writes a file of settings.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gelery.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func env(m map[string]string) func(string) string { return func(name string) string { return m[name] } }

// TestCeleryNames finds every setting of Celery 5.6 under each of its names: of today, of Celery 3, of Django.
func TestCeleryNames(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join("testdata", "celery-5.6.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		written, today, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(today, "broker_") && byName[today] == nil && python(today) == "" {
			continue // of Celery 3 and undocumented: broker_host and the like
		}
		s, err := Find(written)
		if err != nil || s.Name != today {
			t.Errorf("%s: %v, %v; want %s", written, s, err, today)
		}
	}
}

func TestTableIsWhole(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range Table() {
		if seen[s.Name] || s.Meaning == "" || s.Type == "" || python(s.Name) != "" {
			t.Errorf("%s: twice, without a meaning or a type, or ignored as well", s.Name)
		}
		seen[s.Name] = true
		direct := strings.HasPrefix(s.Name, "broker_read") || strings.HasPrefix(s.Name, "broker_write")
		if s.use == nil && s.instead == "" && s.check == nil && !direct {
			t.Errorf("%s does nothing", s.Name)
		}
	}
}

// TestSources: the strongest source wins, in whatever order they are read, and the value says where it came from.
func TestSources(t *testing.T) {
	t.Parallel()
	path := file(t, "worker_concurrency: 2\ntask_default_queue: f\nCELERYD_PREFETCH_MULTIPLIER: 3\n")
	s := &Settings{}
	steps := []func() error{
		func() error { return s.SetOption("worker_concurrency", "4", "option --concurrency") },
		func() error {
			return s.ReadEnvironment(env(map[string]string{"CELERY_WORKER_CONCURRENCY": "3", "CELERY_TASK_DEFAULT_QUEUE": "e"}))
		},
		func() error { return s.ReadFile(path) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	for _, v := range s.Values() {
		got[v.Name] = strings.TrimPrefix(v.Origin, filepath.Dir(path)+"/")
	}
	want := map[string]string{"worker_concurrency": "option --concurrency", "task_default_queue": "variable CELERY_TASK_DEFAULT_QUEUE",
		"worker_prefetch_multiplier": "gelery.yaml:3"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if c := s.Worker(); c.Concurrency != 4 || c.PrefetchMultiplier != 3 || s.Client().Queue != "e" {
		t.Errorf("%+v", c)
	}
}

// TestApply reads a file of everything into the configurations.
func TestApply(t *testing.T) {
	t.Parallel()
	s := &Settings{}
	if err := s.ReadFile(file(t, `
broker_url: [redis://a, redis://b]
broker_read_url: redis://r
broker_connection_timeout: 2
broker_transport_options: {visibility_timeout: 60, socket_connect_timeout: 1.5}
broker_heartbeat: 20
result_backend: redis://c
redis_socket_timeout: 1m
task_default_queue: main
task_queues:
  - plain
  - {name: mail, exchange: x, exchange_type: topic, routing_key: mail.*, max_priority: 9, queue_type: quorum, durable: false}
  - name: all
    broadcast: true
task_routes:
  a.b: slow
  web.*: {queue: web, priority: 3, time_limit: 10}
task_create_missing_queues: no
task_time_limit: 60
task_soft_time_limit: 50s
task_track_started: yes
result_expires: null
result_extended: true
accept_content: [json, yaml]
worker_prefetch_multiplier: 0
worker_autoscale: "3,10" # in either order, as in Celery
task_default_rate_limit: 10/m
worker_limits: [{task: a.b, rate: 5/s}, {queue: q, concurrency: 2}]
worker_enable_remote_control: false
imports: [a, b]
`)); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
	no := false
	client := task.Config{Broker: "redis://r", Backend: "redis://c", Queue: "main", CreateMissingQueues: &no, AcceptContent: []string{"json", "yaml"},
		TransportOptions: map[string]any{"visibility_timeout": int64(60), "socket_connect_timeout": 1.5},
		BackendOptions:   map[string]any{"socket_timeout": time.Minute},
		Queues: []transport.Queue{{Name: "plain"},
			{Name: "mail", Exchange: "x", ExchangeType: "topic", RoutingKey: "mail.*", Transient: true,
				Arguments: map[string]any{"x-max-priority": int64(9), "x-queue-type": "quorum"}},
			task.Broadcast("all")},
	}
	got := s.WorkerClient()
	if d := cmp.Diff(client, got, cmpopts.IgnoreFields(task.Config{}, "Routes")); d != "" {
		t.Error(d)
	}
	if len(got.Routes) != 2 || got.Routes[0].Task != "a.b" || got.Routes[1].Task != "web.*" || len(got.Routes[1].Options) != 3 {
		t.Errorf("routes %v", got.Routes)
	}
	if broker := s.Client().Broker; broker != "redis://a;redis://b" {
		t.Errorf("the producer's broker is %s", broker)
	}
	want := worker.Config{TimeLimit: time.Minute, SoftTimeLimit: 50 * time.Second, TrackStarted: true, ResultExtended: true,
		PrefetchMultiplier: worker.UnlimitedPrefetch, Autoscale: worker.Autoscale{Min: 3, Max: 10}, DefaultRateLimit: "10/m",
		Limits: []worker.Limit{{Task: "a.b", Rate: "5/s"}, {Queue: "q", Concurrency: 2}}, DisableRemoteControl: true}
	if d := cmp.Diff(want, s.Worker()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"imports: it is Python's alone"}, s.Ignored()); d != "" {
		t.Error(d)
	}
}

// TestMistakes tells all mistakes of a file at once, each with its line, its name and what is allowed.
func TestMistakes(t *testing.T) {
	t.Parallel()
	tests := []struct{ text, want string }{
		{"worker_concurrency: many", `:1: worker_concurrency: "many" is not allowed; allowed: a whole number from 0 to 100000`},
		{"worker_concurrency: -1", `:1: worker_concurrency: -1 is not allowed`},
		{"worker_concurrency: [1]", `:1: worker_concurrency: a list is not allowed`},
		{"worker_concurency: 1", `:1: worker_concurency: there is no such setting; did you mean worker_concurrency?`},
		{"CELERY_TASK_ROUTE: {}", `did you mean task_routes?`},
		{"beat_scheduler: mine", `"mine" is no scheduler; it is local, redbeat or django`},
		{"beat_schedule: [a]", `a list is not allowed; allowed: a map of names to maps of task and schedule`},
		{"timezone: Mars/Base", `"Mars/Base": there is no time zone of this name`},
		{"x: 1", `:1: x: there is no such setting; gelery config settings lists`},
		{"task_time_limit: soon", `:1: task_time_limit: "soon" is not allowed; allowed: a number of seconds`},
		{"task_time_limit: -5", `-5 is not allowed`},
		{"task_time_limit: .nan", `is not allowed`},
		{"task_default_queue: 5", ":1: task_default_queue: 5 is no text, write it in quotes"},
		{"task_default_queue: ''", `it is empty`},
		{"task_track_started: perhaps", `"perhaps" is not allowed; allowed: true or false`},
		{"task_default_queue_type: stream", `"stream" is not allowed; allowed: one of classic, quorum`},
		{"task_serializer: pickle", `:1: task_serializer: "pickle" is no serializer that can write; allowed: json, msgpack, yaml`},
		{"accept_content: [jsn]", `accept_content: `},
		{"task_compression: gizp", `task_compression: `},
		{"task_default_rate_limit: 10/d", `task_default_rate_limit: "10/d" is not allowed; allowed: a rate such as`},
		{"task_always_eager: true", `task_always_eager: it has no counterpart here; call the task's function itself`},
		{"worker_autoscale: 0,0", `"0,0" is not MAX or MAX,MIN`},
		{"task_queues: [{name: a, exchnge: b}]", `:1: task_queues: line 1: exchnge is unknown; did you mean exchange?`},
		{"task_queues: [{exchange: b}]", `a queue has no name`},
		{"task_queues: {a: {exchange_type: odd}}", `exchange_type: "odd" is not one of direct, topic, fanout`},
		{"task_queues: 7", `task_queues: 7 is no text`},
		{"task_routes: {a: {que: b}}", `line 1: a: que is unknown; did you mean queue?`},
		{"task_routes: {a: {priority: 300}}", `priority: 300 is not allowed; allowed: a whole number from 0 to 255`},
		{"task_routes: [[a]]", `line 1: a list is neither a map nor a pair`},
		{"task_routes: 'x'", `task_routes: "x" is not allowed; allowed: a map of task names`},
		{"worker_limits: [{task: a, queue: b, rate: 1}]", `line 1: a limit is of a task or of a queue`},
		{"worker_limits: [{task: a}]", `a limit has a rate, a concurrency, or both`},
		{"worker_limits: [{task: a, rate: 5/d}]", `rate: "5/d" is not allowed; allowed: a rate such as`},
		{"worker_limits: {a: b}", `a map is not allowed; allowed: a list of maps of task or queue`},
		{"broker_transport_options: 5", `broker_transport_options: the value (it is not shown) is not allowed; allowed: a map`},
		{"broker_transport_options: {a: 1, a: 2}", `a is given twice`},
		{"task_acks: &a [*a]", "no such setting"},
		{"broker_transport_options: &a {x: *a}", "nested too deep"},
		{"worker_concurrency: 1\nCELERYD_CONCURRENCY: 2", `:2: CELERYD_CONCURRENCY: it is given twice: see `},
		{"- a", `a file of settings is a map of names to values, not a list`},
		{"a: [", `line `},
		{"[a]: 1", `a key is a name, not a list`},
		{"\x00", ``},
		{"worker_concurrency: 1\nx: 1\ntask_time_limit: soon", "\n"},
	}
	for _, tt := range tests {
		err := (&Settings{}).ReadFile(file(t, tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.text, err, tt.want)
		}
	}
	for _, path := range []string{"celeryconfig.py", "x.toml", "none.yaml"} {
		if err := (&Settings{}).ReadFile(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := (&Settings{}).ReadFile(file(t, strings.Repeat("#", maxFile+1))); err == nil {
		t.Error("a file without end was read")
	}
	if err := (&Settings{}).ReadFile(file(t, "# nothing\n")); err != nil {
		t.Error(err)
	}
}

// TestErrorsKeepSecrets: no error has the value of a setting that may be a secret.
func TestErrorsKeepSecrets(t *testing.T) {
	t.Parallel()
	const secret = "12345678"
	var errs []error
	for _, text := range []string{"redis_password: " + secret, "redis_password: *" + secret, "broker_url: " + secret, "broker_url: [" + secret + "]",
		"broker_transport_options: " + secret, "broker_transport_options: {a: !!timestamp " + secret + "}", "result_backend: {a: " + secret + "}"} {
		errs = append(errs, (&Settings{}).ReadFile(file(t, text)))
	}
	for _, name := range []string{"BROKER_TRANSPORT_OPTIONS", "RESULT_BACKEND_TRANSPORT_OPTIONS", "BROKER_USE_SSL"} {
		errs = append(errs, (&Settings{}).ReadEnvironment(env(map[string]string{"CELERY_" + name: `{"sentinel_kwargs": {"password": "` + secret + `"}`})))
	}
	for _, extra := range []string{"broker.transport_options={password: " + secret, "broker.ulr=redis://:" + secret + "@h/0", "redis://:" + secret + "@h/0?a=b"} {
		errs = append(errs, (&Settings{}).SetExtra(extra))
	}
	for _, err := range errs {
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("got %v", err)
		}
	}
	s := &Settings{}
	if err := s.SetExtra("broker.url=redis://:" + secret + "@h/0"); err != nil || s.Values()[0].Origin != "argument broker.url" {
		t.Errorf("%v, %v", err, s.Values())
	}
}

// TestUnmet tells values that ask for what Gelery does not do from those that change nothing.
func TestUnmet(t *testing.T) {
	t.Parallel()
	s := &Settings{}
	if err := s.ReadFile(file(t, `
broker_connection_max_retries: 5
broker_connection_retry: yes
beat_sync_every: 1
worker_eta_task_limit: null
worker_cancel_long_running_tasks_on_connection_loss: true
imports: [a]
`)); err != nil {
		t.Fatal(err)
	}
	unmet := []string{"broker_connection_max_retries: it has no effect; it is always null",
		"worker_cancel_long_running_tasks_on_connection_loss: it has no effect; it is always false"}
	if d := cmp.Diff(unmet, s.Unmet()); d != "" {
		t.Error(d)
	}
	ignored := []string{"beat_sync_every: what beat did is written down at each run", "broker_connection_retry: it is so anyway",
		"imports: it is Python's alone",
		"worker_eta_task_limit: it is so anyway"}
	if d := cmp.Diff(ignored, s.Ignored()); d != "" {
		t.Error(d)
	}
}

func TestContradictions(t *testing.T) {
	t.Parallel()
	s := &Settings{}
	if err := s.ReadFile(file(t, "task_time_limit: 5\ntask_soft_time_limit: 6\n")); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(); err == nil || !strings.Contains(err.Error(), "yaml:2: task_soft_time_limit: 6s is longer than task_time_limit, 5s (") {
		t.Error(err)
	}
}

// TestCheckWorker finds what only a worker refuses, under the settings' names.
func TestCheckWorker(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"worker_deduplicate_successful_tasks: true":                           ":1: worker_deduplicate_successful_tasks: it needs a result backend",
		"result_backend: rpc://\nworker_deduplicate_successful_tasks: true":   ":2: worker_deduplicate_successful_tasks: it needs a result backend",
		"worker_health_addr: nowhere":                                         ":1: worker_health_addr: ",
		"worker_exclude_queues: celery":                                       ":1: worker_exclude_queues: no queue is left",
		"worker_limits: [{task: a, rate: 5}, {task: a, rate: 6}]":             ":1: worker_limits: item 2: ",
		"broker_url: amqp://h\nworker_limits: [{task: a, rate: 5}]":           "worker_limits_url: Limits are kept in Redis",
		"worker_queues: [a]\ntask_create_missing_queues: false":               ":1: worker_queues: ",
		"worker_limits: [{task: a, rate: 5}]":                                 "",
		"worker_deduplicate_successful_tasks: true\nresult_backend: redis://": "",
	} {
		s := &Settings{}
		if err := s.ReadFile(file(t, text)); err != nil {
			t.Fatal(err)
		}
		err := s.CheckWorker()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// TestFields wants a setting for every field.
func TestFields(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		of      reflect.Type
		fields  map[string]string
		without []string
	}{
		{reflect.TypeFor[task.Config](), clientFields, []string{"Middleware", "Origin", "Logger"}},
		{reflect.TypeFor[worker.Config](), workerFields, []string{"LimitsOptions", "Health", "Logger"}},
	} {
		for _, f := range reflect.VisibleFields(tt.of) {
			name := tt.fields[f.Name]
			if byName[name] == nil && !slices.Contains(tt.without, f.Name) {
				t.Errorf("%v.%s has the setting %q", tt.of, f.Name, name)
			}
		}
	}
}

func TestExtras(t *testing.T) {
	t.Parallel()
	s := &Settings{}
	for _, extra := range []string{"task.default_rate_limit=5/m", "_prefetch_multiplier=2", "task_time_limit=(int)30", "task.routes={a: b}"} {
		if err := s.SetExtra(extra); err != nil {
			t.Error(err)
		}
	}
	c := s.Worker()
	if c.DefaultRateLimit != "5/m" || c.PrefetchMultiplier != 2 || c.TimeLimit != 30*time.Second || len(s.Client().Routes) != 1 {
		t.Errorf("%+v", c)
	}
	for _, wrong := range []string{"x", "task.nothing=1", "_concurrency=x", "=", ""} {
		if err := s.SetExtra(wrong); err == nil {
			t.Errorf("%q was taken", wrong)
		}
	}
}

func TestShown(t *testing.T) {
	t.Parallel()
	s := &Settings{}
	if err := s.ReadFile(file(t, `
broker_url: redis://user:GEHEIM@h
redis_password: GEHEIM
task_default_routing_key: open
broker_transport_options: {password: GEHEIM, sentinel_kwargs: {password: GEHEIM}, list: ["redis://:GEHEIM@h"], global_keyprefix: p}
task_routes: {a.b: {queue: q}, api.token: {queue: signatures}}
worker_limits: [{task: api.token, rate: 5/s}]
task_queues: {pass: {routing_key: secret}}
task_time_limit: 90
security_key: GEHEIM
`)); err != nil {
		t.Fatal(err)
	}
	got := map[string]any{}
	for _, v := range s.Values() {
		got[v.Name] = v.Shown()
	}
	want := map[string]any{"broker_url": "redis://user:***@h", "redis_password": hidden, "task_default_routing_key": "open",
		"broker_transport_options": map[string]any{"password": hidden, "sentinel_kwargs": map[string]any{"password": hidden},
			"list": []any{"redis://:***@h"}, "global_keyprefix": "p"},
		"task_routes":   map[string]any{"a.b": map[string]any{"queue": "q"}, "api.token": map[string]any{"queue": "signatures"}},
		"worker_limits": []any{map[string]any{"task": "api.token", "rate": "5/s"}},
		"task_queues":   map[string]any{"pass": map[string]any{"routing_key": "secret"}}, "task_time_limit": 90.0, "security_key": hidden}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestLoad(t *testing.T) {
	t.Setenv("CELERY_WORKER_CONCURRENCY", "7")
	t.Setenv(FileVariable, file(t, "worker_concurrency: 2\ntask_time_limit: 5\n"))
	s, err := Load("")
	if err != nil || s.Worker().Concurrency != 7 || s.Worker().TimeLimit != 5*time.Second {
		t.Errorf("%v, %+v", err, s.Worker())
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no error for a file that is not there")
	}
}

// FuzzFile: no file, however odd, does more than fail.
func FuzzFile(f *testing.F) {
	for _, text := range []string{"worker_concurrency: 2", "task_routes: {a: {queue: b}}", "task_queues: [a, {name: b}]", "a: &a [*a]",
		"broker_transport_options: {a: {b: [1, 2.5, null]}}", `{"task_queues": {"a": {"exchange": "b"}}}`, "? [a]\n: b", "<<: {a: b}", "task_queues: &a {x: *a}"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &Settings{}
		if s.read("f", data) == nil && s.Check() == nil {
			_ = s.Ignored()
		}
		for _, v := range s.Values() {
			_ = v.Shown()
		}
	})
}
