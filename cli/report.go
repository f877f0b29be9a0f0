package cli

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/transport"
)

func init() { commands = append(commands, reportCommand) }

// reportDocument is what `report -o json` prints.
type reportDocument struct {
	versionDocument
	CPUs          int              `json:"cpus"`
	Broker        string           `json:"broker"`         // without its password
	ResultBackend string           `json:"result_backend"` // the same; "": none
	Transports    []string         `json:"transports"`     // URL schemes there are drivers for
	Backends      []string         `json:"backends"`       // the same
	Tasks         []string         `json:"tasks"`          // of this program
	Settings      []configDocument `json:"settings"`       // what is set, secrets hidden
}

func reportCommand(a *app) *cobra.Command {
	var out output
	var every watch
	cmd := &cobra.Command{
		Use:     "report",
		GroupID: groupOperate,
		Short:   "Print what a bug report should have",
		Long: `Print what a bug report should have

It tells of this program and its settings, without passwords and secrets, and asks nobody. What the workers say of themselves is
shown by "inspect report". -o json prints {"version", "revision", "go", "platform", "cpus", "broker", "result_backend",
"transports", "backends", "tasks", "settings": [{"name", "value", "origin"}]}.

` + exitCodes,
		Example: `  gelery report
  gelery --config gelery.yaml report --output json`,
		Args: cobra.NoArgs,
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			return a.watched(ctx, every, func() error { return a.report(out, every) })
		}),
	}
	out.add(cmd, outputPlain, outputJSON, outputJSONL, outputYAML)
	every.add(cmd)
	addBrokerFlags(cmd)
	return cmd
}

func (a *app) report(o output, every watch) error {
	d := reportDocument{versionDocument: readVersion(), CPUs: runtime.NumCPU(), Broker: brokerurl.Redact(a.brokerURL("READ")),
		ResultBackend: brokerurl.Redact(a.backendURL()), Transports: transport.Schemes(), Backends: backends.Schemes(), Tasks: a.mux.Names(),
		Settings: []configDocument{}}
	for _, v := range a.settings.Values() {
		d.Settings = append(d.Settings, configDocument{v.Name, v.Shown(), v.Origin})
	}
	if o == outputJSON || o == outputJSONL || o == outputYAML {
		return every.document(o)(a.stdout, d)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "software -> gelery:%s go:%s\nplatform -> %s cpus:%d\ndrivers  -> transports:%s backends:%s\nsettings -> broker:%s results:%s\ntasks    -> %s\n\n",
		strings.TrimSpace(d.Version+" "+d.Revision), strings.TrimPrefix(d.Go, "go"), d.Platform, d.CPUs, strings.Join(d.Transports, ","),
		strings.Join(d.Backends, ","), d.Broker, firstOf(d.ResultBackend, "disabled"), firstOf(strings.Join(d.Tasks, " "), "none"))
	for _, s := range d.Settings {
		fmt.Fprintf(&b, "%s: %s (%s)\n", s.Name, replyText(s.Value), s.Origin)
	}
	_, err := fmt.Fprint(a.stdout, b.String())
	return err
}
