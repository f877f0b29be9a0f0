package scheduler

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol/serialization"
)

// fromYAML reads a definition as a file has it.
func fromYAML(t testing.TB, text string) map[string]any {
	t.Helper()
	v, err := serialization.YAML.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v.(map[string]any)
}

func TestParseEntry(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{task: tasks.add, schedule: 30}`: `{"schedule":{"every":30},"task":"tasks.add"}`,
		`{task: a, schedule: 1m30s, args: [1, x], kwargs: {b: 2}, options: {queue: q, priority: 3, expires: 60, headers: {h: 1}}}`: `{"args":[1,"x"],"kwargs":{"b":2},"options":{"expires":60,"headers":{"h":1},"priority":3,"queue":"q"},"schedule":{"every":90},"task":"a"}`,
		`{task: a, schedule: 3600, relative: true, timezone: Europe/Berlin}`:                                                       `{"schedule":{"every":3600,"relative":true},"task":"a","timezone":"Europe/Berlin"}`,
		`{task: a, schedule: "*/15 8-18 * * mon-fri", timezone: Asia/Tokyo}`:                                                       `{"schedule":{"crontab":{"day_of_month":"*","day_of_week":"mon-fri","hour":"8-18","minute":"*/15","month_of_year":"*"}},"task":"a","timezone":"Asia/Tokyo"}`,
		`{task: a, schedule: {crontab: {minute: [0, 30], hour: 5}}}`:                                                               `{"schedule":{"crontab":{"day_of_month":"*","day_of_week":"*","hour":"5","minute":"0,30","month_of_year":"*"}},"task":"a","timezone":"UTC"}`,
		`{task: a, schedule: "@daily"}`:                                                                                            `{"schedule":{"cron":"@daily"},"task":"a","timezone":"UTC"}`,
		`{task: a, schedule: "@every 90s"}`:                                                                                        `{"schedule":{"every":90},"task":"a"}`,
		`{task: a, schedule: {cron: "0 0 13 * fri"}}`:                                                                              `{"schedule":{"cron":"0 0 13 * fri"},"task":"a","timezone":"UTC"}`,
		`{task: a, schedule: {solar: sunset, latitude: 52.5, longitude: 13}}`:                                                      `{"schedule":{"latitude":52.5,"longitude":13,"solar":"sunset"},"task":"a"}`,
		`{task: a, schedule: {at: 2026-01-31T12:00:00}, timezone: Asia/Tokyo}`:                                                     `{"schedule":{"at":"2026-01-31T12:00:00.000000+09:00"},"task":"a","timezone":"Asia/Tokyo"}`,
		`{task: a, schedule: {at: "2026-01-31T03:00:00Z", timezone: Asia/Tokyo}}`:                                                  `{"schedule":{"at":"2026-01-31T12:00:00.000000+09:00"},"task":"a","timezone":"Asia/Tokyo"}`,
		`{task: a, schedule: {at: "2026-01-31T12:00:00+09:00"}}`:                                                                   `{"schedule":{"at":"2026-01-31T03:00:00.000000+00:00"},"task":"a"}`,
		`{task: a, schedule: 1, missed: 7, deadline: 5m, jitter: 10, enabled: no}`:                                                 `{"deadline":300,"enabled":false,"jitter":10,"missed":"7","schedule":{"every":1},"task":"a"}`,
		`{task: {task: celery.chain, subtask_type: chain, kwargs: {tasks: [{task: a}, {task: b}]}}, schedule: 5, one_off: true, keep_expired: true, start: 2026-01-01, end: 2026-02-01}`: `{"end":"2026-02-01T00:00:00.000000+00:00","keep_expired":true,"one_off":true,"schedule":{"every":5},"start":"2026-01-01T00:00:00.000000+00:00","task":{"args":[],"chord_size":null,"immutable":false,"kwargs":{"tasks":[{"task":"a"},{"task":"b"}]},"options":{},"subtask_type":"chain","task":"celery.chain"}}`,
	} {
		e, err := ParseEntry("e", fromYAML(t, text), nil)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		d, err := e.Definition()
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, _ := serialization.AppendJSON(nil, d)
		var g, w map[string]any
		_, _ = json.Unmarshal(got, &g), json.Unmarshal([]byte(want), &w)
		delete(dict(g["task"]), "chord_size")
		delete(dict(w["task"]), "chord_size")
		if !reflect.DeepEqual(g, w) {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
		again, err := ParseEntry("e", d, zone(t, "Asia/Tokyo")) // where another default holds
		if err != nil || !again.Schedule.Next(time.Unix(1e9, 0)).Equal(e.Schedule.Next(time.Unix(1e9, 0))) {
			t.Errorf("%s: read again: %v, %v", text, again, err)
		}
	}
}

func dict(v any) map[string]any { m, _ := v.(map[string]any); return m }

func TestParseEntryRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{task: a}`:                                                     `entry "e": schedule: there is none`,
		`{schedule: 5}`:                                                 `entry "e": task: there is none`,
		`{task: a, schedule: 0}`:                                        "schedule: every: 0s is not allowed",
		`{task: a, schedule: "*/0 * * * *"}`:                            `schedule: minute "*/0"`,
		`{task: a, schedule: "0 0 30 2 *"}`:                             `month_of_year "2" has no such day`,
		`{task: a, schedule: 5, timezone: Mars/X}`:                      `timezone: "Mars/X": there is no time zone`,
		`{task: a, schedule: 5, tsk: 1}`:                                "tsk: there is no such field; is it task?",
		`{task: a, schedule: 5, options: {que: x}}`:                     "options: que: there is no such option; is it queue?",
		`{task: a, schedule: 5, options: {priority: high}}`:             "options: priority:",
		`{task: a, schedule: 5, missed: some}`:                          "missed:",
		`{task: a, schedule: 5, jitter: x}`:                             "jitter:",
		`{task: a, schedule: 5, jitter: 1e300}`:                         "jitter:",
		`{task: a, schedule: {every: 5, cron: "@daily"}}`:               "it is one of every and cron",
		`{task: a, schedule: {every: 5, minute: 1}}`:                    "minute: there is no such field beside every",
		`{task: a, schedule: {crontab: {minute: []}}}`:                  `minute "": it is empty`,
		`{task: a, schedule: {crontab: {min: 1}}}`:                      "min: a crontab has no such field",
		`{task: a, schedule: {solar: noon, latitude: 1, longitude: 1}}`: `event "noon"`,
		`{task: a, schedule: {at: soon}}`:                               "at:",
		`{task: a, schedule: "0 5 * * *", relative: true}`:              "relative: only an interval",
		`{task: a, schedule: 5, start: 2026-02-01, end: 2026-01-01}`:    "end: it is before the start",
		`{task: {task: a, args: [1]}, schedule: 5, args: [2]}`:          "args: the signature in task has its own",
		`{task: a, schedule: [1]}`:                                      "schedule: it is a number, a text or a map",
		`{task: a, schedule: 5, enabled: perhaps}`:                      "enabled:",
		`{task: a, schedule: 5, args: 1}`:                               "task: args of a signature has a value of the wrong kind",
	} {
		e, err := ParseEntry("e", fromYAML(t, text), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %s", text, e, err, want)
		}
	}
}
