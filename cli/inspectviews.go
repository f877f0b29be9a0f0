package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gelery/gelery/monitor"
)

// remoteViews are the tables of inspect commands. Others show their replies as they are.
var remoteViews = map[string]remoteView{
	"status": {heading: []string{"NODE", "STATUS"}, rows: func(r monitor.Reply) ([][]string, error) {
		return [][]string{{printable(r.Node), "OK"}}, nil
	}},
	"ping": {heading: []string{"NODE", "REPLY"}, rows: func(r monitor.Reply) ([][]string, error) {
		return nodeRows(r, func(pong string) [][]string { return [][]string{{pong}} })
	}},
	"active":   {heading: []string{"NODE", "ID", "NAME", "ARGS", "KWARGS", "SINCE", "PID", "ROUTING KEY"}, rows: taskRows},
	"reserved": {heading: []string{"NODE", "ID", "NAME", "ARGS", "KWARGS", "SINCE", "PID", "ROUTING KEY"}, rows: taskRows},
	"scheduled": {heading: []string{"NODE", "ETA", "ID", "NAME", "ARGS", "KWARGS"}, rows: func(r monitor.Reply) ([][]string, error) {
		return nodeRows(r, func(list []monitor.ScheduledTask) (rows [][]string) {
			for _, t := range list {
				rows = append(rows, []string{t.ETA, t.Request.ID, t.Request.Name, replyText(t.Request.Args), replyText(t.Request.Kwargs)})
			}
			return rows
		})
	}},
	"revoked":    {heading: []string{"NODE", "ID"}, rows: listRows},
	"registered": {heading: []string{"NODE", "TASK"}, rows: listRows},
	"query_task": {heading: []string{"NODE", "ID", "STATE", "NAME", "ARGS", "KWARGS"}, rows: func(r monitor.Reply) ([][]string, error) {
		return nodeRows(r, func(tasks map[string]monitor.QueriedTask) (rows [][]string) {
			for _, id := range slices.Sorted(maps.Keys(tasks)) {
				t := tasks[id]
				rows = append(rows, []string{id, t.State, t.Request.Name, replyText(t.Request.Args), replyText(t.Request.Kwargs)})
			}
			return rows
		})
	}},
	"active_queues": {heading: []string{"NODE", "QUEUE", "EXCHANGE", "TYPE", "ROUTING KEY", "ARGUMENTS"}, rows: queueRows},
	"stats":         {heading: []string{"NODE", "PID", "UPTIME", "POOL", "SLOTS", "PREFETCH", "TASKS"}, rows: statsRows},
	"conf": {heading: []string{"NODE", "SETTING", "VALUE"}, rows: func(r monitor.Reply) ([][]string, error) {
		return nodeRows(r, func(conf map[string]any) (rows [][]string) {
			for _, name := range slices.Sorted(maps.Keys(conf)) {
				rows = append(rows, []string{name, replyText(conf[name])})
			}
			return rows
		})
	}},
	"clock": {heading: []string{"NODE", "CLOCK"}, rows: func(r monitor.Reply) ([][]string, error) {
		return nodeRows(r, func(c monitor.Clock) [][]string { return [][]string{{strconv.FormatInt(c.Clock, 10)}} })
	}},
	"report":  {heading: []string{"NODE", "REPORT"}, rows: lineRows},
	"memdump": {heading: []string{"NODE", "MEMORY"}, rows: lineRows},
}

// nodeRows are the rows of a reply of type T, each behind the name of the node.
func nodeRows[T any](r monitor.Reply, make func(T) [][]string) ([][]string, error) {
	a := monitor.As[T](r)
	if a.Err != nil {
		return nil, a.Err
	}
	rows := make(a.Value)
	for i := range rows {
		for j := range rows[i] {
			rows[i][j] = printable(rows[i][j])
		}
		rows[i] = append([]string{printable(r.Node)}, rows[i]...)
	}
	return rows, nil
}

func listRows(r monitor.Reply) ([][]string, error) {
	return nodeRows(r, func(list []string) (rows [][]string) {
		for _, x := range list {
			rows = append(rows, []string{x})
		}
		return rows
	})
}

// lineRows are those of a text, a row a line.
func lineRows(r monitor.Reply) ([][]string, error) {
	return nodeRows(r, func(text *string) (rows [][]string) {
		if text == nil {
			return [][]string{{"-"}}
		}
		for line := range strings.Lines(*text) {
			if line = strings.TrimSpace(line); line != "" {
				rows = append(rows, []string{line})
			}
		}
		return rows
	})
}

func taskRows(r monitor.Reply) ([][]string, error) {
	return nodeRows(r, func(list []monitor.TaskInfo) (rows [][]string) {
		for _, t := range list {
			pid := "-"
			if t.WorkerPID != nil {
				pid = strconv.FormatInt(*t.WorkerPID, 10)
			}
			rows = append(rows, []string{t.ID, t.Name, replyText(t.Args), replyText(t.Kwargs), startText(t.TimeStart), pid, deref(t.DeliveryInfo.RoutingKey)})
		}
		return rows
	})
}

// startText is when a task began. A small number is no date but a time since the start of a host: Celery's before 5.1.
func startText(at *float64) string {
	if at == nil || *at < 1e9 || *at > 1e11 {
		return "-"
	}
	return time.UnixMicro(int64(*at * 1e6)).UTC().Format(time.RFC3339)
}

func queueRows(r monitor.Reply) ([][]string, error) {
	return nodeRows(r, func(list []monitor.ActiveQueue) (rows [][]string) {
		for _, q := range list {
			arguments := "-"
			if len(q.Arguments) > 0 {
				arguments = replyText(q.Arguments)
			}
			rows = append(rows, []string{q.Name, deref(q.Exchange.Name), deref(q.Exchange.Type), deref(q.RoutingKey), arguments})
		}
		return rows
	})
}

func statsRows(r monitor.Reply) ([][]string, error) {
	return nodeRows(r, func(s monitor.Stats) [][]string {
		var tasks int64
		for _, n := range s.Total {
			tasks += n
		}
		number := func(n *int64) string {
			if n == nil {
				return "-"
			}
			return strconv.FormatInt(*n, 10)
		}
		uptime := "-"
		if s.Uptime != nil && *s.Uptime >= 0 && *s.Uptime < 1e9 {
			uptime = (time.Duration(*s.Uptime) * time.Second).String()
		}
		return [][]string{{strconv.FormatInt(s.PID, 10), uptime, deref(s.Pool.Implementation), number(s.Pool.MaxConcurrency), number(s.PrefetchCount),
			strconv.FormatInt(tasks, 10)}}
	})
}

// deref is a text that may be missing.
func deref(s *string) string {
	if s == nil || *s == "" {
		return "-"
	}
	return *s
}

// replyText is a value in a cell: text as it is, anything else as JSON. {"ok": text} is the text.
func replyText(v any) string {
	if m, isMap := v.(map[string]any); isMap && len(m) == 1 && m["ok"] != nil {
		v = m["ok"]
	}
	if s, isText := v.(string); isText {
		return printable(strings.TrimSpace(s))
	}
	text, err := wireJSON(v)
	if err != nil {
		text, _ = json.Marshal(fmt.Sprint(v))
	}
	return printable(string(text))
}

// sortedReplies are the replies by node name.
func sortedReplies(replies []monitor.Reply) []monitor.Reply {
	replies = slices.Clone(replies)
	slices.SortStableFunc(replies, func(a, b monitor.Reply) int { return strings.Compare(a.Node, b.Node) })
	return replies
}
