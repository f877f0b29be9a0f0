package django

import (
	"context"
	"fmt"
	"strings"

	"github.com/gelery/gelery/internal/database"
)

// Django's tables.
const (
	taskTable     = "django_celery_beat_periodictask"
	markerTable   = "django_celery_beat_periodictasks" // one row: when anything was changed last
	intervalTable = "django_celery_beat_intervalschedule"
	crontabTable  = "django_celery_beat_crontabschedule"
	solarTable    = "django_celery_beat_solarschedule"
	clockedTable  = "django_celery_beat_clockedschedule"
)

// Our own.
const (
	leaseTable   = "gelery_beat"
	pendingTable = "gelery_beat_pending"
)

// own are the statements that make our tables.
func (d dialect) own() map[string]string {
	return map[string]string{
		leaseTable: "CREATE TABLE " + leaseTable + " (id INTEGER NOT NULL PRIMARY KEY, owner VARCHAR(200) NOT NULL," +
			" valid_until BIGINT NOT NULL, fence BIGINT NOT NULL, renewals BIGINT NOT NULL)",
		pendingTable: "CREATE TABLE " + pendingTable + " (id VARCHAR(64) NOT NULL PRIMARY KEY, run " + d.text + " NOT NULL)",
	}
}

// prepare looks at the tables, and makes our own.
func (s *Store) prepare(ctx context.Context) error {
	for table, columns := range map[string]string{
		markerTable: "last_update", taskTable: strings.Join(taskColumns, ", "), intervalTable: "every", crontabTable: "timezone", solarTable: "event",
		clockedTable: "clocked_time",
	} {
		if err := s.look(ctx, table, columns); err != nil {
			if s.dialect.Kind(err) != database.Fatal {
				return err
			}
			return fmt.Errorf("table %s: %w (Django makes it: manage.py migrate django_celery_beat, of version 2.2 or later)", table, err)
		}
	}
	var missing []string
	for table, create := range s.dialect.own() {
		err := s.look(ctx, table, "id")
		if err == nil {
			continue
		}
		if s.dialect.Kind(err) != database.Fatal {
			return err
		}
		_, made := s.db.ExecContext(ctx, create)
		if again := s.look(ctx, table, "id"); again != nil { // perhaps another one made it at the same time
			if made == nil {
				made = again
			}
			if s.dialect.Kind(made) != database.Fatal {
				return made
			}
			missing = append(missing, fmt.Sprintf("%s;  -- %v", create, made))
		}
	}
	if len(missing) > 0 {
		return finalError{fmt.Errorf("the tables in which beats keep their lease and what they send are not there and cannot be made by this account; make them, and let it read and write them: %s",
			strings.Join(missing, "\n"))}
	}
	return nil
}

func (s *Store) look(ctx context.Context, table, columns string) error {
	return s.dialect.query(ctx, s.db, func(func(...any) error) error { return nil }, "SELECT ", columns, " FROM ", table, " WHERE 1 = 0")
}
