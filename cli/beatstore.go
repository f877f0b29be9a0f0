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
	redis   string             // the broker's URL, if it is Redis
	options map[string]any     // of its driver
	lead    bool
	log     *slog.Logger
}

// beatStores open the stores that are not local.
var beatStores = map[string]func(context.Context, *beatOpening) (scheduler.Store, string, error){}

// openBeatStore opens the store of the settings. The URL is the broker's, in case the schedule is there. Mistakes in entries are logged.
func (a *app) openBeatStore(ctx context.Context, broker string, lead bool, log *slog.Logger) (*beatStore, error) {
	config, err := a.settings.Beat()
	if err != nil && lead {
		for mistake := range strings.SplitSeq(err.Error(), "\n") {
			log.Error("beat: an entry is left out", "error", mistake)
		}
	}
	o := &beatOpening{config: config, entries: slices.Concat(config.Entries, a.entries), lead: lead, log: log}
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
