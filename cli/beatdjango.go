package cli

import (
	"context"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/scheduler/django"
	"github.com/gelery/gelery/settings"
)

func init() { beatStores[settings.DjangoScheduler] = openDjango }

func openDjango(ctx context.Context, o *beatOpening) (scheduler.Store, string, error) {
	url := o.config.DatabaseURL
	if url == "" {
		return nil, "", usage("the scheduler django needs a database", "beat_database_url is not set",
			"set beat_database_url, or CELERY_BEAT_DATABASE_URL, to Django's: postgresql://user@host/database")
	}
	c := django.Config{URL: url, Unaware: o.config.Unaware, DjangoZone: o.config.DatabaseZone, Zone: o.config.Zone, KeepExpired: o.config.Loop.KeepExpired, Deadline: o.config.Loop.CronDeadline, Logger: o.log}
	if o.lead {
		c.Static = o.entries
	}
	store, err := django.Open(ctx, c)
	if err != nil {
		return nil, "", storeFailure(ctx, err, "database of the schedule", url, "beat_database_url")
	}
	return store, brokerurl.Redact(url), nil
}
