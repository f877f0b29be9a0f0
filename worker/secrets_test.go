package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// TestSecrets: what a Python client has sent as it is, and what a task returns, is shown nowhere.
func TestSecrets(t *testing.T) {
	t.Parallel()
	type login struct {
		User string
		PIN  string         `task:"pin,secret"`
		Rest map[string]any `task:",remain"`
	}
	type session struct {
		Key   string `task:"key,secret"`
		Token string `task:"access_token"`
	}
	s := newSite(t)
	began, release := make(chan string, 9), make(chan struct{})
	Handle(s.mux, task.Define[login, session]("login"), func(_ context.Context, a login) (session, error) {
		began <- fmt.Sprint(a.PIN, a.Rest)
		<-release
		return session{"key-hush", "token-hush"}, nil
	})
	m := s.monitor()
	log := &lines{}
	s.start(Config{Concurrency: 1, TaskEvents: true, HeartbeatInterval: time.Hour, Logger: slog.New(slog.NewTextHandler(log, nil))})
	box := s.mailbox()
	const shown, hidden = "('ann', '********')", "{'deep': [{'password': '********'}]}"
	send := func(args, kwargs string) (id string) {
		s.raw(func(m *protocol.Message) {
			m.Headers.Task, m.Headers.ArgsRepr, m.Headers.KwargsRepr = "login", args, kwargs
			m.Body = []byte(`[["ann", "pin-hush"], {"deep": [{"password": "hush"}]}, null]`)
			id = m.Headers.ID
		})
		return id
	}
	all := [][3]string{{send("('ann', 'pin-hush')", "{'deep': [{'password': 'hush'}]}"), shown, hidden},
		{send("(...)", "<none of your business>"), "(...)", "<none of your business>"}}
	if got := <-began; got != "pin-hushmap[deep:[map[password:hush]]]" {
		t.Errorf("the task gets %s", got)
	}
	for _, method := range []string{"active", "reserved"} {
		got := box.first(method, nil)
		if text := fmt.Sprint(got["args"], got["kwargs"]); text != "[ann ********] map[deep:[map[password:********]]]" {
			t.Errorf("%s shows %s", method, text)
		}
	}
	if got := fmt.Sprint(box.first("active", map[string]any{"safe": true})); strings.Contains(got, "hush") {
		t.Errorf("active shows %s", got)
	}
	close(release)
	m.until(protocol.TaskSucceeded, all[1][0])
	for _, x := range all {
		told := strings.Join(m.told(x[0]), "\n")
		for _, want := range []string{"args=" + x[1] + " kwargs=" + x[2] + " ", "result={'access_token': '********', 'key': '********'}"} {
			if !strings.Contains(told, want) || strings.Contains(told, "hush") {
				t.Errorf("the events are %s\nexpected %s", told, want)
			}
		}
		v, err := s.client.Result(x[0]).Get(s.context())
		if got := fmt.Sprint(v); err != nil || got != "map[access_token:token-hush key:key-hush]" {
			t.Errorf("the result is %s, %v", got, err)
		}
	}
	s.end()
	if log.count("hush") != 0 || log.count("'access_token': '********'") == 0 {
		t.Errorf("the log says %s", log.text.String())
	}
}

// TestSecretsOfRetry: the message of another attempt shows nothing that a Python client has shown in the first, nor does the event
// of its being sent.
func TestSecretsOfRetry(t *testing.T) {
	t.Parallel()
	type login struct {
		PIN      string `task:"pin,secret"`
		Password string `task:"password"`
	}
	s := newSite(t)
	var err error
	if s.client, err = task.NewClient(s.client.Transport(), s.client.Backend(), task.Config{SendSentEvent: true}); err != nil {
		t.Fatal(err)
	}
	shown := make(chan string, 9)
	Handle(s.mux, task.Define[login, string]("login"), func(ctx context.Context, _ login) (string, error) {
		info, _ := task.FromContext(ctx)
		shown <- info.ArgsRepr + info.KwargsRepr
		if info.Retries == 0 {
			return "", task.Retry(nil, task.Countdown(0))
		}
		return "welcome", nil
	})
	m := s.monitor()
	s.start(Config{Concurrency: 1, TaskEvents: true, HeartbeatInterval: time.Hour})
	id := ""
	s.raw(func(m *protocol.Message) {
		m.Headers.Task, m.Headers.ArgsRepr, m.Headers.KwargsRepr = "login", "('pin-hush',)", "{'password': 'hush'}"
		m.Body = []byte(`[["pin-hush"], {"password": "hush"}, null]`)
		id = m.Headers.ID
	})
	first, second := await(t, shown, "the first attempt"), await(t, shown, "the next one")
	if !strings.Contains(first, "hush") || second != "('********',){'password': '********'}" {
		t.Errorf("the attempts show %s, then %s", first, second)
	}
	m.until(protocol.TaskSent, id)
	told := strings.Join(m.told(id), "\n")
	if strings.Contains(told, "hush") || !strings.Contains(told, "sent args=('********',)") {
		t.Errorf("the events are %s", told)
	}
}

// TestSecretsOfExceptions: what fails or is tried again with a secret among the arguments of its exception does not show it.
func TestSecretsOfExceptions(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.mux.Func("login", func(ctx context.Context) error {
		refused := task.AsPython(errors.New("no entry"), "app", "Refused", "ann", map[string]any{"password": "hush"})
		if info, _ := task.FromContext(ctx); info.Retries == 0 {
			return task.Retry(refused, task.Countdown(0))
		}
		return refused
	})
	m := s.monitor()
	log := &lines{}
	s.start(Config{TaskEvents: true, HeartbeatInterval: time.Hour, Logger: slog.New(slog.NewTextHandler(log, nil))})
	r := s.send("login")
	m.until(protocol.TaskFailed, r.ID())
	told := strings.Join(m.told(r.ID()), "\n")
	if strings.Contains(told, "hush") || strings.Count(told, "Refused('ann', {'password': '********'})") != 2 {
		t.Errorf("the events are %s", told)
	}
	s.end()
	if log.count("raised unexpected: Refused('ann', {'password': '********'})") != 1 {
		t.Errorf("the log says %s", log.text.String())
	}
	state, err := r.State(s.context())
	if _, failed := r.Get(s.context()); err != nil || state != protocol.Failure || !strings.Contains(fmt.Sprint(failed), "hush") {
		t.Errorf("the result is %s, %v, %v", state, failed, err)
	}
}
