package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/scheduler/django"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// djangoBeatVariable makes of this test binary a beat on the tables of a database, the variable's value, with the broker of
// BROKER_URL and the queue of QUEUE.
const djangoBeatVariable = "GELERY_INTEROP_DJANGO_BEAT"

// beDjangoBeat is that program's main. It does not return.
func beDjangoBeat(url string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := djangoBeat(ctx, url)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // nothing is left to be done
	}
	os.Exit(0)
}

func djangoBeat(ctx context.Context, url string) error {
	client, err := task.Dial(ctx, task.Config{Broker: os.Getenv("BROKER_URL"), Queue: os.Getenv("QUEUE")})
	if err != nil {
		return err
	}
	store, err := django.Open(ctx, django.Config{URL: url})
	if err != nil {
		return err
	}
	beat, err := scheduler.New(client, store, scheduler.Config{})
	if err != nil {
		return err
	}
	return beat.Run(ctx)
}

// djangoSide is Django's tables in a database, and both beats of it.
type djangoSide struct {
	Settings
	version  Version
	database string
	driver   *Driver
	self     string
}

func newDjangoSide(t *testing.T, database string, s Settings) *djangoSide {
	t.Helper()
	v := findEnvironment(t, "django", "django")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := &djangoSide{Settings: s, version: v, database: database, self: self}
	d.driver = v.startDriver(t, d.command(t, "python", "djangobeat.py"))
	d.do(t, Command{Op: "migrate", Timeout: 240})
	return d
}

func (d *djangoSide) command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := d.version.Command(t, d.Settings, program, args...)
	cmd.Env = append(cmd.Env, "DJANGO_DATABASE="+d.database)
	return cmd
}

func (d *djangoSide) python(t *testing.T) *Process {
	t.Helper()
	cmd := d.command(t, "celery", "-A", "djangobeat", "beat", "-S", "django_celery_beat.schedulers:DatabaseScheduler", "--max-interval", "1", "-l", "info",
		"--pidfile=")
	p := Start(t, "python-beat", cmd)
	p.WaitFor(t, "beat: Starting", 4*time.Minute)
	return p
}

func (d *djangoSide) golang(t *testing.T) *Process {
	t.Helper()
	cmd := exec.Command(d.self)
	cmd.Env = append(withoutCelery(os.Environ()), djangoBeatVariable+"="+d.database, "BROKER_URL="+d.Broker, "QUEUE="+d.Queue)
	return Start(t, "gelery-beat", cmd)
}

func (d *djangoSide) do(t *testing.T, c Command) Answer {
	t.Helper()
	a := d.driver.Do(t, c)
	if !a.OK {
		t.Fatalf("%s: %s: %s", c.Op, a.Kind, a.Error)
	}
	return a
}

type djangoRow struct {
	Enabled       bool
	Count         int
	Last          string
	Kind          string
	Args, Kwargs  string
	Queue         string
	ExpireSeconds int `json:"expire_seconds"`
}

func (d *djangoSide) rows(t *testing.T) map[string]djangoRow {
	t.Helper()
	var rows map[string]djangoRow
	if err := json.Unmarshal(d.do(t, Command{Op: "rows"}).Value, &rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// ran waits until an entry has run so often more than it had.
func (d *djangoSide) ran(t *testing.T, name string, more int) {
	t.Helper()
	begun := d.rows(t)[name].Count
	eventually(t, fmt.Sprintf("%s has run %d times more", name, more), func() bool { return d.rows(t)[name].Count >= begun+more })
}

// TestDjangoBeatTakeover hands a live schedule from Python's beat to Gelery's, which is killed and started again, and back: Django's
// rows count each run, and each of those is one message.
func TestDjangoBeatTakeover(t *testing.T) {
	t.Parallel()
	for _, database := range []string{"sqlite:///" + filepath.Join(t.TempDir(), "db.sqlite3"), testservice.StartPostgreSQL(t).NewDatabase(t)} {
		kind, _, _ := strings.Cut(database, ":")
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := RedisStack.Open(t)
			s.Queue = "beats"
			s.Conf = map[string]any{"beat_sync_every": 1, "result_expires": nil}
			d := newDjangoSide(t, database, s)
			d.do(t, Command{Op: "create", Args: []any{
				map[string]any{"name": "every", "task": "dev.add", "args": "[1, 2]", "interval": map[string]any{"every": 1, "period": "seconds"}, "expire_seconds": 3600},
				map[string]any{"name": "often", "task": "dev.add", "args": "[1, 2]", "interval": map[string]any{"every": 300000, "period": "microseconds"}, "expire_seconds": 3600},
			}})
			python := d.python(t)
			d.ran(t, "every", 2)
			python.Stop(t, patience)
			before := d.rows(t)
			golang := d.golang(t)
			d.ran(t, "every", 2)
			golang.Kill()
			golang = d.golang(t)
			d.ran(t, "every", 2)
			// What Django changes is seen within two seconds.
			d.do(t, Command{Op: "change", ID: "often", Kwargs: map[string]any{"args": "[3, 4]"}})
			d.ran(t, "every", 3)
			golang.Stop(t, patience)
			between := d.rows(t)
			python = d.python(t)
			d.ran(t, "every", 2)
			python.Stop(t, patience)

			byPython, byGelery := d.messages(t)
			for name, row := range d.rows(t) {
				if n, want := len(byGelery[name]), between[name].Count-before[name].Count; n != want || !row.Enabled || row.Last == "" {
					t.Errorf("%s: Gelery sent %d messages and counted %d; Django says %+v", name, n, want, row)
				}
				// Each of the two stops of Python's may come after it has sent a run and before it has written so, or the other
				// way round: it counts and logs a run, and its signal handler ends it before the message is sent.
				if n, want := len(byPython[name]), row.Count-between[name].Count+before[name].Count; n < want-2 || n > want+2 {
					t.Errorf("%s: Python sent %d messages and counted %d", name, n, want)
				}
			}
			changed := 0
			for _, args := range byGelery["often"] {
				if strings.Contains(args, "3, 4") {
					changed++
				}
			}
			if changed < 3 { // in three seconds there are ten moments
				t.Errorf("%d of %d runs have the changed arguments", changed, len(byGelery["often"]))
			}
		})
	}
}

// messages are the arguments of what each side has sent, by the entry. Ours tell their moments.
func (d *djangoSide) messages(t *testing.T) (byPython, byGelery map[string][]string) {
	t.Helper()
	client := dial(t, d.Settings, 2)
	q, err := client.Queue(d.Queue)
	if err != nil {
		t.Fatal(err)
	}
	tr := client.Transport()
	depths, err := tr.(transport.Inspector).Depths(within(t), []string{d.Queue})
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := tr.Consume(within(t), transport.ConsumeOptions{Queues: []transport.Queue{q}, Prefetch: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = consumer.Close(within(t)) }()
	byPython, byGelery = map[string][]string{}, map[string][]string{}
	ids := map[string]bool{}
	for n := int(depths[0].Messages); n > 0; {
		batch, err := consumer.Receive(within(t), n)
		if err != nil {
			t.Fatal(err)
		}
		for _, delivery := range batch {
			h := delivery.Message.Headers
			if ids[h.ID] {
				t.Errorf("%s is there twice", h.ID)
			}
			ids[h.ID] = true
			sent, name := byPython, ""
			for _, extra := range h.Extra {
				switch extra.Name {
				case scheduler.NameHeader:
					name = strings.Trim(string(extra.Value), `"`)
				case scheduler.MomentHeader:
					sent = byGelery
				}
			}
			sent[name] = append(sent[name], h.ArgsRepr)
		}
		n -= len(batch)
	}
	return byPython, byGelery
}

// TestDjangoBeatDue asks Python's beat and ours when rows of every kind are due.
func TestDjangoBeatDue(t *testing.T) {
	t.Parallel()
	database := "sqlite:///" + filepath.Join(t.TempDir(), "db.sqlite3")
	d := newDjangoSide(t, database, Settings{Broker: "memory://", Queue: "none"})
	now := time.Now().UTC()
	at := func(span time.Duration) string { return now.Add(span).Format(time.RFC3339Nano) }
	var args []any
	add := func(name string, fields map[string]any) {
		row := map[string]any{"name": name, "task": "t"}
		for k, v := range fields {
			row[k] = v
		}
		args = append(args, row)
	}
	for _, period := range []string{"days", "hours", "minutes", "seconds", "microseconds"} {
		every := map[string]any{"every": 1000000, "period": period}
		if period == "days" || period == "hours" {
			every["every"] = 2
		}
		add("new "+period, map[string]any{"interval": every})
		add("long ago "+period, map[string]any{"interval": every, "last_run_at": at(-300 * 24 * time.Hour)})
		add("yesterday "+period, map[string]any{"interval": every, "last_run_at": at(-25 * time.Hour)})
	}
	for i, zone := range []string{"UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"} {
		crontab := map[string]any{"minute": fmt.Sprint(7 * i), "hour": fmt.Sprint(5 * i), "timezone": zone}
		add("daily in "+zone, map[string]any{"crontab": crontab})
		add("daily, last long ago, in "+zone, map[string]any{"crontab": crontab, "last_run_at": at(-100 * time.Hour)})
		add("weekdays in "+zone, map[string]any{"crontab": map[string]any{"minute": "*/20", "day_of_week": "mon-fri", "timezone": zone}, "last_run_at": at(-time.Second)})
		add("monthly in "+zone, map[string]any{"crontab": map[string]any{"minute": "0", "hour": "0", "day_of_month": "1", "timezone": zone}})
	}
	add("sunset", map[string]any{"solar": map[string]any{"event": "sunset", "latitude": "52.520000", "longitude": "13.405000"}})
	add("noon, long ago", map[string]any{"solar": map[string]any{"event": "solar_noon", "latitude": "-37.817530", "longitude": "144.967150"}, "last_run_at": at(-100 * time.Hour)})
	add("clocked, to come", map[string]any{"clocked": map[string]any{"clocked_time": at(time.Hour)}, "one_off": true})
	add("clocked, past", map[string]any{"clocked": map[string]any{"clocked_time": at(-time.Hour)}, "one_off": true})
	add("start to come", map[string]any{"interval": map[string]any{"every": 10, "period": "seconds"}, "start_time": at(time.Hour)})
	add("start past", map[string]any{"interval": map[string]any{"every": 10, "period": "seconds"}, "start_time": at(-time.Hour)})
	add("start past, has run", map[string]any{"interval": map[string]any{"every": 3600, "period": "seconds"}, "start_time": at(-time.Hour), "last_run_at": at(-time.Minute)})
	d.do(t, Command{Op: "create", Args: args})

	store, err := django.Open(within(t), django.Config{URL: database})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	var theirs map[string]struct {
		Due  bool
		Next float64
	}
	before := time.Now()
	if err := json.Unmarshal(d.do(t, Command{Op: "due"}).Value, &theirs); err != nil || len(theirs) != len(args) {
		t.Fatalf("%d of %d: %v", len(theirs), len(args), err)
	}
	after := time.Now()
	for r, err := range store.Entries(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		python, ours := theirs[r.Entry.Name], r.Entry.Due(r.State)
		next := time.Duration(python.Next * float64(time.Second))
		slack := 2 * time.Second // solar events and rounding
		if r.Entry.Name == "sunset" {
			slack = time.Minute
		}
		switch {
		case python.Due != !ours.After(after):
			t.Errorf("%s: Python says due %v, next in %v; ours is due at %v, and it is %v", r.Entry.Name, python.Due, next, ours, after)
		case !python.Due && (ours.Before(before.Add(next-slack)) || ours.After(after.Add(next+slack))):
			t.Errorf("%s: Python is due at %v, ours at %v", r.Entry.Name, before.Add(next).UTC(), ours)
		}
	}
}
