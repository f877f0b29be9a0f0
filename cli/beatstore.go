package cli

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/settings"
)

// beatStore is the store of a schedule that the settings name.
type beatStore struct {
	scheduler.Store
	config settings.Beat
	at     string // where it is, for people
}

// beatOpening is how a store is opened: to lead with it, or to look at it and change it.
type beatOpening struct {
	config  settings.Beat
	entries []*scheduler.Entry // of the settings and of the program
	// unreadable are the names of those of the settings that have a mistake.
	unreadable []string
	redis      string         // the broker's URL, if it is Redis
	options    map[string]any // of its driver
	lead       bool
	log        *slog.Logger
}

// beatStores open the stores that are not local.
var beatStores = map[string]func(context.Context, *beatOpening) (scheduler.Store, string, error){}

// openBeatStore opens the store of the settings. The URL is the broker's, in case the schedule is there. Mistakes in entries are logged.
func (a *app) openBeatStore(ctx context.Context, broker string, lead bool, log *slog.Logger) (*beatStore, error) {
	leftOut := func(mistake string) {
		if lead {
			log.Error("beat: an entry is left out", "error", mistake)
		}
	}
	config, err := a.settings.Beat()
	if err != nil {
		for mistake := range strings.SplitSeq(err.Error(), "\n") {
			leftOut(mistake)
		}
	}
	entries, wrong := distinct(slices.Concat(a.entries, config.Entries), leftOut)
	o := &beatOpening{config: config, entries: entries, unreadable: append(unreadable(err), wrong...), lead: lead, log: log}
	switch scheme, _, _ := strings.Cut(broker, "://"); scheme {
	case "redis", "rediss", "sentinel":
		o.redis, o.options = broker, a.settings.ClientOf(broker, "").TransportOptions
	}
	open := beatStores[config.Scheduler]
	if open == nil {
		open = a.openLocal
	}
	store, at, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	return &beatStore{store, config, at}, nil
}

// distinct are the entries that can be, and of those of one name the first: the program's, which Celery's add_periodic_task, too, puts in
// the place of the settings'.
// wrong are the names of those that cannot be.
func distinct(entries []*scheduler.Entry, leftOut func(mistake string)) (all []*scheduler.Entry, wrong []string) {
	names := map[string]bool{}
	for _, e := range entries {
		err := e.Check()
		if err != nil {
			wrong = append(wrong, e.Name)
		} else if names[e.Name] {
			err = &scheduler.EntryError{Entry: e.Name, Field: "name", Err: errors.New("there are two of it, and the program's or the first one counts")}
		}
		if err != nil {
			leftOut(err.Error())
			continue
		}
		names[e.Name] = true
		all = append(all, e)
	}
	return all, wrong
}

// unreadable are the names of the entries that have a mistake, from the error of [settings.Settings.Beat].
func unreadable(err error) (names []string) {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, err := range all {
		var wrong *scheduler.EntryError
		if errors.As(err, &wrong) {
			names = append(names, wrong.Entry)
		}
	}
	return names
}

func (a *app) openLocal(_ context.Context, o *beatOpening) (scheduler.Store, string, error) {
	if _, named := a.settings.Get("beat_schedule_filename"); a.forgetful && !named {
		o.config.StateFile = ""
	}
	store, err := scheduler.NewLocal(scheduler.LocalConfig{Entries: o.entries, Files: o.config.Files, StateFile: o.config.StateFile,
		Zone: o.config.Zone, Logger: o.log})
	if err != nil {
		return nil, "", usage(err.Error(), "", "")
	}
	return store, firstOf(o.config.StateFile, "memory"), nil
}

// storeFailure tells a store that does not answer from one that is named wrongly.
func storeFailure(ctx context.Context, err error, what, url, setting string) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return err
	}
	f := unreachable(what, brokerurl.Redact(url), err)
	f.todo = "check whether it runs, and its URL in the setting " + setting
	return f
}
