// Package scheduler tells when periodic tasks run: Celery's intervals, crontabs, solar events and moments, and plain cron
// lines. Each is a [Schedule], which is robfig/cron's too, so that theirs may be used here and these there.
//
// # Changes of the clock
//
// A crontab runs by the clock of its time zone. Where that clock is changed,
//
//   - an hour field of fixed hours names moments of the day, and each comes once: at the first instant at which the clock
//     shows it or a later time. What a change skips runs at the change, several such moments together once; what the clock
//     shows twice runs the first time.
//   - an hour field that begins with "*", or has all hours, follows the hours that pass: what a change skips does not run,
//     and what the clock shows twice runs twice.
//
// Celery does neither in all cases: see docs/differences.md. An interval is time that passes, whatever the clock shows. Plain cron
// lines have robfig/cron's own rule: skipped moments are left out, and those that come twice run twice.
package scheduler

import "time"

// Schedule tells when something runs.
type Schedule interface {
	// Next is the first run after t, never t itself; the zero time if there is none.
	Next(t time.Time) time.Time
}
