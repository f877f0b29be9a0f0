package settings

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gelery/gelery/scheduler"
)

// DefaultStateFile is the default of beat_schedule_filename. It is not Celery's, whose file holds pickles.
const DefaultStateFile = "gelerybeat-schedule.json"

// Where a beat keeps its schedule: the values of beat_scheduler.
const (
	LocalScheduler   = "local"   // this process: entries of the settings and of files, and a file of what ran last
	RedBeatScheduler = "redbeat" // Redis, as RedBeat has it
	DjangoScheduler  = "django"  // the tables of django-celery-beat
)

// schedulers are the names of each, Celery's too.
var schedulers = map[string]string{
	LocalScheduler:                                    LocalScheduler,
	"celery.beat:PersistentScheduler":                 LocalScheduler,
	"celery.beat.PersistentScheduler":                 LocalScheduler,
	"celery.beat:Scheduler":                           LocalScheduler,
	"celery.beat.Scheduler":                           LocalScheduler,
	RedBeatScheduler:                                  RedBeatScheduler,
	"redbeat.RedBeatScheduler":                        RedBeatScheduler,
	"redbeat:RedBeatScheduler":                        RedBeatScheduler,
	"redbeat.schedulers:RedBeatScheduler":             RedBeatScheduler,
	"redbeat.schedulers.RedBeatScheduler":             RedBeatScheduler,
	DjangoScheduler:                                   DjangoScheduler,
	"django_celery_beat.schedulers:DatabaseScheduler": DjangoScheduler,
	"django_celery_beat.schedulers.DatabaseScheduler": DjangoScheduler,
}

func schedulerKind(v any) error {
	if schedulers[v.(string)] == "" {
		return fmt.Errorf("%.100q is no scheduler; it is local, redbeat or django, or Celery's name of one of them", v)
	}
	return nil
}

func isZone(v any) error {
	if name := v.(string); name == "" || name == "Local" {
		return errors.New("it is the name of a time zone, such as Europe/Berlin")
	} else if _, err := time.LoadLocation(name); err != nil {
		return fmt.Errorf("%.60q: there is no time zone of this name", name)
	}
	return nil
}

// systemZone is the zone of this machine, under its name if that can be found.
func systemZone() *time.Location {
	name := os.Getenv("TZ")
	if name == "" {
		target, _ := os.Readlink("/etc/localtime")
		_, name, _ = strings.Cut(filepath.ToSlash(target), "/zoneinfo/")
	}
	if zone, err := time.LoadLocation(name); err == nil && name != "" {
		return zone
	}
	return time.Local
}

// Beat are the settings of a beat.
type Beat struct {
	// Entries are those of beat_schedule that have no mistake, by name, and celery.backend_cleanup where the result backend needs it.
	Entries []*scheduler.Entry
	Zone    *time.Location // of schedules that name none
	Loop    scheduler.Config

	Scheduler  string // LocalScheduler, RedBeatScheduler or DjangoScheduler
	StateFile  string
	Files      []string
	HealthAddr string // "": none

	DatabaseURL  string
	Unaware      bool           // its times have no zone
	DatabaseZone *time.Location // Django's then

	// Of redbeat; what is not set is the default there.
	RedisURL     string // "": the broker
	RedisOptions map[string]any
	KeyPrefix    string
	LockKey      string
	NoLock       bool
	LockTimeout  time.Duration

	schedule map[string]any
}

// Beat is the configuration of a beat. The error tells the mistakes of entries, each as an [*Error] about beat_schedule that wraps
// what [scheduler.ParseEntry] found; the configuration is good without these entries.
func (s *Settings) Beat() (Beat, error) {
	c := s.apply("broker_write_url")
	b := c.beat
	b.Scheduler = first(b.Scheduler, LocalScheduler)
	b.StateFile = first(b.StateFile, DefaultStateFile)
	if v, set := s.values["redbeat_lock_key"]; set && v.Value == nil {
		b.NoLock = true
	}
	if b.Zone == nil {
		b.Zone = time.UTC
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(b.schedule)) {
		entry, err := b.entry(name, b.schedule[name])
		if err != nil {
			for line := range eachError(err) {
				errs = append(errs, &Error{Name: "beat_schedule", Origin: s.values["beat_schedule"].Origin, Err: line})
			}
			continue
		}
		b.Entries = append(b.Entries, entry)
	}
	if _, own := b.schedule[cleanupEntry]; !own && c.client.ResultExpires >= 0 && !expiresByItself(c.client.Backend) {
		entry, err := scheduler.ParseEntry(cleanupEntry, map[string]any{
			"task": cleanupEntry, "schedule": "0 4 * * *", "options": map[string]any{"expires": int64(12 * 3600)},
		}, b.Zone)
		if err != nil {
			return b, err
		}
		b.Entries = append(b.Entries, entry)
	}
	return b, errors.Join(errs...)
}

// cleanupEntry is the entry that Celery's beat adds by itself, and the task that it sends.
const cleanupEntry = "celery.backend_cleanup"

// expiresByItself tells result backends that need no clean-up: Celery's supports_autoexpire.
func expiresByItself(backend string) bool {
	return driver(backend) != "db" && !strings.HasPrefix(backend, "file:")
}

func (b *Beat) entry(name string, v any) (*scheduler.Entry, error) {
	fields, ok := v.(map[string]any)
	if !ok {
		return nil, &scheduler.EntryError{Entry: name, Err: errors.New("it is a map of task, schedule and more")}
	}
	return scheduler.ParseEntry(name, fields, b.Zone)
}

// CheckBeat finds the mistakes in the schedule. It is not part of Check: they stop nothing but the entries they are in.
func (s *Settings) CheckBeat() error {
	_, err := s.Beat()
	return err
}

// eachError takes apart what errors.Join has joined.
func eachError(err error) func(yield func(error) bool) {
	return func(yield func(error) bool) {
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok {
			yield(err)
			return
		}
		for _, e := range joined.Unwrap() {
			if !yield(e) {
				return
			}
		}
	}
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
