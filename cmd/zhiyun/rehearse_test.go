package main

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/shelf"
	"github.com/zhiyun-ops/zhiyun/flow/tooltest"
	"github.com/zhiyun-ops/zhiyun/flow/trigger"
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/control/controltest"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/l5"
)

// reading are the verbs that change nothing.
var reading = []string{
	"get", "describe", "plan", "flow list", "flow show", "flow watch", "flow logs", "flow export", "flow lint", "flow definitions", "flow plan", "flow graph", "flow diff", "flow schema", "flow check", "flow locks", "flow freezes",
	"trigger list", "trigger show", "trigger history", "gray list", "gray show",
	"scale status", "scale orders", "drift list", "drift show", "drift compare", "l5 resolve", "l5 explain", "l5 rules get", "package list", "file list",
	"config get", "config render", "permission list", "notify history", "notify mutes", "notify silences", "notify routes", "notify templates", "notify sinks", "device counts", "audit", "doctor", "token list", "certs show",
	"tool list", "tool describe", "tool lint", "tool versions",
}

const madeToBePrinted = "a token is made to be printed; it is in the audit record, and can be revoked"

// unrehearsed are the verbs that change something and have no --dry-run, each with the reason.
var unrehearsed = map[string]string{
	"demo":           "a Zhiyun of its own, in a folder of its own, gone when it ends",
	"dev":            "a Zhiyun of its own, in a folder of its own",
	"server":         "a daemon; zhiyun doctor looks at what it runs on",
	"agent":          "a daemon",
	"sample load":    "the demo's callers; they keep nothing",
	"sample pack":    "writes one file, which it names",
	"bench":          "measures in temporary folders",
	"l5 call":        "sends calls to a service: what they do is the service's",
	"tool run":       "is a tool as flows start it: ZHIYUN_PLAN=1 has it say what it would do",
	"tool test":      "runs tools in temporary folders of its own",
	"tool new":       "writes a new folder, and names each file",
	"token enrol":    madeToBePrinted,
	"token operator": madeToBePrinted,
	"token viewer":   madeToBePrinted,
	"token metrics":  madeToBePrinted,
	"token agent":    madeToBePrinted,
	"certs make":     "adds files that are not there, and overwrites none",
	"certs rotate":   "adds a CA in the folder; the old one stays trusted",
	"certs retire":   "certs show tells which CAs would go",
}

// rehearsals are the verbs with --dry-run, each as it is called in a world of seed, with what it must say.
var rehearsals = map[string]struct{ args, says string }{
	"apply":              {"apply SITE", "sh-1"},
	"delete":             {"delete module shop.web", "- cmdb/live/module/shop.web"},
	"device fault":       {"device fault spare other --reason smoke", "other"},
	"device repair":      {"device repair broken", "faulty -> idle"},
	"device retire":      {"device retire spare", "idle -> retired"},
	"tool push":          {"tool push TOOL", "tool/note.lay"},
	"tool use":           {"tool use note.lay DIGEST", "tool/note.lay"},
	"flow run":           {"flow run hold seconds=5", "wait"},
	"flow cancel":        {"flow cancel EXECUTION", "compensating"},
	"flow retry":         {"flow retry EXECUTION", "ERROR: flow: not possible"},
	"flow pause":         {"flow pause EXECUTION", "execution.paused"},
	"flow resume":        {"flow resume EXECUTION", "nothing would change"},
	"flow skip":          {"flow skip EXECUTION wait", "step.skipping"},
	"flow fail":          {"flow fail EXECUTION wait", "attempt.stopping"},
	"flow retry-step":    {"flow retry-step EXECUTION wait", "ERROR: flow: not possible"},
	"flow back":          {"flow back EXECUTION wait", "execution.returning"},
	"flow settle":        {"flow settle EXECUTION wait --done", "ERROR: flow: not possible"},
	"flow choose":        {"flow choose EXECUTION wait --case then", "ERROR: flow: invalid"},
	"flow migrate":       {"flow migrate EXECUTION", "ERROR: flow: not possible"},
	"flow signal":        {"flow signal EXECUTION loaded", "execution.signalled"},
	"flow approve":       {"flow approve EXECUTION wait", "ERROR: flow: not possible"},
	"flow refuse":        {"flow refuse EXECUTION wait", "ERROR: flow: not possible"},
	"flow prune":         {"flow prune --older-than 1h", "nothing would change"},
	"flow save":          {"flow save FLOW", "flow/hold/2"},
	"trigger apply":      {"trigger apply TRIGGER", "+ trigger/hourly"},
	"trigger pause":      {"trigger pause nightly", "becomes: paused"},
	"trigger resume":     {"trigger resume nightly", "becomes: active"},
	"trigger fire":       {"trigger fire nightly", "starts: hold"},
	"trigger delete":     {"trigger delete nightly", "becomes: gone"},
	"freeze":             {"freeze --module shop.cart --until 2h --reason sale", "center/freeze/shop.cart"},
	"unfreeze":           {"unfreeze", "- center/freeze"},
	"l5 rules set":       {"l5 rules set shop.cart --none", "l5/rule"},
	"l5 rules isolate":   {"l5 rules isolate shop.cart 10.0.0.2:8080 --reason 'heap'", "10.0.0.2:8080"},
	"gray abort":         {"gray abort r-1 --reason smoke", "-> aborting"},
	"gray promote":       {"gray promote r-1", "promoted"},
	"gray pause":         {"gray pause r-1", "-> paused"},
	"gray resume":        {"gray resume r-1", "nothing would change"},
	"drift repair":       {"drift repair spare/file/etc/motd", "order.by"},
	"drift ignore":       {"drift ignore spare/file/etc/motd --reason known", "-> ignored"},
	"drift reopen":       {"drift reopen other/file/etc/motd", "ignored -> open"},
	"package push":       {"package push cart 1.0.1 PACKAGE", "center/package/cart/1.0.1"},
	"file push":          {"file push shop motd FILE", "center/file/shop/motd"},
	"config set":         {"config set cart.workers 8 --of shop.cart", "value: 8"},
	"config template":    {"config template cart.json FILE", "center/config/template/cart.json"},
	"permission request": {"permission request shop.web shop.cart --reason page", "shop.web"},
	"permission approve": {"permission approve shop.app shop.cart", "-> active"},
	"permission revoke":  {"permission revoke shop.app shop.cart", "-> revoked"},
	"notify retry":       {"notify retry dead-1", "ERROR: center: not found"},
	"notify set":         {"notify set route ROUTE", "center/notify/route/10-all"},
	"notify remove":      {"notify remove template brief", "- center/notify/template/brief"},
	"notify mute":        {"notify mute shop.cart --reason test", "shop.cart"},
	"notify unmute":      {"notify unmute m-1", "lifted"},
	"notify silence":     {"notify silence spare --reason disk", "spare"},
	"notify unsilence":   {"notify unsilence s-1", "lifted"},
	"token revoke":       {"token revoke --role viewer --name board", "ERROR"},
	"pause":              {"pause shop.cart --reason incident", "center/pause"},
	"resume":             {"resume", "- center/pause"},
	"scale out":          {"", ""}, // the decider's own: internal/control tests it
	"scale in":           {"", ""},
}

// leaves are the verbs by their names.
func leaves(path string, commands []*cli.Command, out map[string]*cli.Command) map[string]*cli.Command {
	for _, command := range commands {
		name := strings.TrimSpace(path + " " + command.Name)
		if len(command.Subcommands) > 0 {
			leaves(name, command.Subcommands, out)
		} else {
			out[name] = command
		}
	}
	return out
}

// Every verb that changes something can be rehearsed, or says here why not.
func TestEveryChangingVerbCanBeRehearsed(t *testing.T) {
	known := leaves("", newApp().Commands, map[string]*cli.Command{})
	classes := make(map[string]int)
	count := func(name string) { classes[name]++ }
	for _, name := range reading {
		count(name)
	}
	for name, reason := range unrehearsed {
		count(name)
		if reason == "" {
			t.Errorf("%s has no --dry-run, and no reason for that", name)
		}
	}
	for name := range rehearsals {
		count(name)
	}
	for name, command := range known {
		dry := false
		for _, flag := range command.Flags {
			dry = dry || flag.Names()[0] == "dry-run"
		}
		_, rehearsed := rehearsals[name]
		switch {
		case classes[name] != 1:
			t.Errorf("%q is in %d of the lists above: put it into reading, rehearsals, or unrehearsed with a reason", name, classes[name])
		case rehearsed != dry:
			t.Errorf("%q has --dry-run: %v; the lists above say %v", name, dry, rehearsed)
		}
		delete(classes, name)
	}
	for name := range classes {
		t.Errorf("there is no verb %q", name)
	}
}

const seed = `
kind: site
name: sz-1
city: shenzhen
---
kind: device_type
name: b6
cores: 8
---
{kind: module, name: shop.cart, services: [{id: shop.cart, port: 8080}]}
---
{kind: module, name: shop.web}
---
{kind: module, name: shop.app}
---
{kind: device, name: spare, addr: 10.0.0.1, site: sz-1, type: b6}
---
{kind: device, name: other, addr: 10.0.0.2, site: sz-1, type: b6}
---
{kind: device, name: broken, addr: 10.0.0.3, site: sz-1, type: b6}
`

const holdFlow = "flow: hold\nparams:\n  seconds: {type: int, default: 1}\nsteps:\n  - {name: wait, stage: apply, tool: wait}\n"

// seeded is a world in which each rehearsal has something to do, and the names that stand for what it made.
func seeded(t *testing.T) (*controltest.World, *strings.Replacer) {
	t.Helper()
	w, ctx, dir := controltest.New(t), t.Context(), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w.Apply(t, seed)
	must(w.Names.Register(ctx, []l5.Instance{{Service: "shop.cart", Addr: "10.0.0.2:8080", Device: "other", Share: 100}}))
	must(w.CMDB.MarkFaulty(ctx, "broken", "smoke", cmdb.By("test")))
	must(w.Ledger.Report(ctx, drift.Report{Device: "spare", Generation: "g", At: time.Now(), Findings: []drift.Finding{differs("spare")}}))
	must(w.Ledger.Report(ctx, drift.Report{Device: "other", Generation: "g", At: time.Now(), Findings: []drift.Finding{differs("other")}}))
	must(w.Ledger.Ignore(ctx, "other/file/etc/motd", "test", "known", time.Time{}))
	policy := gray.Deck()
	policy.Soak, policy.MaxStage = time.Hour, 10*time.Hour
	_, err := w.Gray.Start(ctx, gray.Rollout{ID: "r-1", Service: "shop.cart", New: []gray.Member{{ID: "10.0.0.1:8080", Cores: 8}}, MinCores: 8, Policy: policy})
	must(err)
	for event, err := range w.Gray.Watch(ctx, "r-1") {
		must(err)
		if event.To == gray.Running {
			break
		}
	}
	_, err = w.Flow.Save(ctx, []byte(holdFlow))
	must(err)
	id, err := w.Flow.Start(ctx, "hold", nil, flow.By("test"))
	must(err)
	_, err = w.Centers.Permissions.Request(ctx, "shop.app", "shop.cart", "k", "test", "page")
	must(err)
	_, err = w.Centers.Notify.Mute(ctx, center.Mute{Key: "m-1", Kind: "load", Module: "shop.cart", Until: time.Now().Add(time.Hour), Actor: "test"})
	must(err)
	_, err = w.Centers.Notify.Silence(ctx, center.Silence{Key: "s-1", Devices: []string{"other"}, Until: time.Now().Add(time.Hour), Actor: "test"})
	must(err)
	_, err = w.Centers.Notify.SetTemplate(ctx, center.NoticeTemplate{Name: "brief", Text: "{{.text}}", Actor: "test"})
	must(err)
	_, err = w.Centers.Pause.Press(ctx, "", "test", "incident")
	must(err)
	_, err = w.Centers.Freezes.Press(ctx, "", time.Time{}, "test", "sale")
	must(err)
	nightly, err := trigger.Parse([]byte("trigger: nightly\nflow: hold\nschedule: {cron: \"30 2 * * *\"}\n"))
	must(err)
	_, err = w.Triggers.Apply(ctx, nightly)
	must(err)
	var archive bytes.Buffer
	packer := tar.NewWriter(&archive)
	must(packer.WriteHeader(&tar.Header{Name: "bin/cart", Mode: 0o755, Size: 4, Typeflag: tar.TypeReg}))
	_, err = packer.Write([]byte("cart"))
	must(err)
	must(packer.Close())
	for name, content := range map[string]string{
		"trigger.yaml": "trigger: hourly\nflow: hold\nschedule: {cron: \"0 * * * *\"}\n",
		"rules.yaml":   "subset: 20\n", "route.yaml": "name: 10-all\nseverity: warning\ntemplate: brief\n", "site.yaml": "kind: site\nname: sh-1\ncity: shanghai\n", "package.tar": archive.String(), "file": "hello\n",
		"flow.yaml": holdFlow + "  - {name: again, stage: apply, tool: wait}\n",
	} {
		must(os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	tool := filepath.Join(dir, "note.lay")
	_, err = tooltest.New(tool, "note.lay", "sh")
	must(err)
	var packed bytes.Buffer
	must(shelf.Pack(tool, &packed))
	staged, err := w.Shelf.Stage(&packed)
	must(err)
	kept, err := staged.Keep()
	must(err)
	return w, strings.NewReplacer("TOOL", tool, "DIGEST", kept.Digest, "SITE", filepath.Join(dir, "site.yaml"), "ROUTE", filepath.Join(dir, "route.yaml"), "RULES", filepath.Join(dir, "rules.yaml"), "TRIGGER", filepath.Join(dir, "trigger.yaml"), "PACKAGE", filepath.Join(dir, "package.tar"), "FLOW", filepath.Join(dir, "flow.yaml"),
		"FILE", filepath.Join(dir, "file"), "EXECUTION", id)
}

func differs(device string) drift.Finding {
	return drift.Finding{Device: device, Kind: drift.KindFile, Subject: "etc/motd", Fields: []string{drift.FieldContent}, Status: drift.StatusOpen, FirstSeen: time.Now()}
}

// everything is all that a server keeps.
func everything(t *testing.T, w *controltest.World) map[string]any {
	t.Helper()
	ctx := t.Context()
	out := map[string]any{}
	for key, value := range w.Raw(t) {
		// A barrier is empty, and written to make reads fresh; leases are the name servers' own.
		if !strings.HasSuffix(key, "/.barrier") && !strings.HasPrefix(key, "/l5/lease/") {
			out[key] = value
		}
	}
	rollout, err := w.Gray.Get(ctx, "r-1")
	if err != nil {
		t.Fatal(err)
	}
	out["rollout"] = rollout.Status.State
	executions, _, err := w.Flow.List(ctx, flow.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range executions {
		out["execution/"+e.ID] = []any{e.State, e.Paused, e.Seq}
	}
	definitions, err := w.Flow.Definitions(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range definitions {
		out["flow/"+d.Name] = d.Version
	}
	audited, err := w.Records.AuditLog(ctx, records.Query{})
	if err != nil {
		t.Fatal(err)
	}
	out["audit"] = len(audited)
	versions, err := w.Shelf.List("")
	if err != nil {
		t.Fatal(err)
	}
	out["tools"] = versions
	err = filepath.WalkDir(w.Blobs, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			out["blob "+path] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A rehearsal tells what would change, and changes nothing at all: no record, no execution, no content, no audit entry.
func TestRehearsalsChangeNothing(t *testing.T) {
	w, names := seeded(t)
	before := everything(t, w)
	for name, test := range rehearsals {
		if test.args == "" {
			continue
		}
		args := strings.Fields(names.Replace(test.args))
		out, err := run(t, append(args, "--dry-run", "--server", w.Target)...)
		if err != nil {
			out += "ERROR: " + err.Error()
		}
		if !strings.Contains(out, test.says) || err != nil && !strings.HasPrefix(test.says, "ERROR") {
			t.Errorf("%s --dry-run does not say %q: %v\n%s", name, test.says, err, out)
		}
		if diff := cmp.Diff(before, everything(t, w)); diff != "" {
			t.Errorf("%s --dry-run changed something (-before +after):\n%s", name, diff)
		}
	}
}

// What a rehearsal says would change is what the verb then changes.
func TestARehearsalComesTrue(t *testing.T) {
	w, _ := seeded(t)
	if out, err := run(t, "device", "retire", "spare", "--dry-run", "--server", w.Target); err != nil || !strings.Contains(out, "idle -> retired") {
		t.Fatalf("rehearsed: %v\n%s", err, out)
	}
	if _, err := run(t, "device", "retire", "spare", "--server", w.Target); err != nil {
		t.Fatal(err)
	}
	if d, err := w.CMDB.Device("spare"); err != nil || d.State != cmdb.Retired {
		t.Errorf("the device is %s, %v", d.State, err)
	}
	if out, err := run(t, "device", "retire", "spare", "--dry-run", "--server", w.Target); err == nil && !strings.Contains(out, "nothing would change") {
		t.Errorf("rehearsed again: %v\n%s", err, out)
	}
}

// A pushed tool runs from then on; one that would break a flow is refused, and the rehearsal names the flow.
func TestPushedToolRuns(t *testing.T) {
	w := controltest.New(t)
	dir := filepath.Join(t.TempDir(), "note.lay")
	if _, err := tooltest.New(dir, "note.lay", "sh"); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, "tool", "push", dir, "--server", w.Target); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := w.Flow.Save(t.Context(), []byte("flow: notes\nsteps:\n  - {name: lay, tool: note.lay, with: {name: hello}}\n")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, flow.ManifestFile)
	manifest, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.ReplaceAll(manifest, []byte(`"name": {"type"`), []byte(`"note": {"type"`))
	changed = bytes.ReplaceAll(changed, []byte(`["name"]`), []byte(`["note"]`))
	changed = bytes.ReplaceAll(changed, []byte(`{"name": "hello"}`), []byte(`{"note": "hello"}`))
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, "tool", "push", dir, "--dry-run", "--server", w.Target); err != nil || !strings.Contains(out, "flow/notes/1") {
		t.Errorf("rehearsed: %v\n%s", err, out)
	}
	if out, err := run(t, "tool", "push", dir, "--server", w.Target); err == nil || !strings.Contains(err.Error(), "flow notes version 1") {
		t.Errorf("pushed although it breaks a flow: %v\n%s", err, out)
	}
	if out, err := run(t, "tool", "push", dir, "--break", "--server", w.Target); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	versions, err := w.Shelf.List("note.lay")
	if err != nil || len(versions) != 2 {
		t.Fatalf("%d versions, %v", len(versions), err)
	}
	if out, err := run(t, "tool", "versions", "note.lay", "--server", w.Target); err != nil || !strings.Contains(out, versions[0].Manifest.Digest) {
		t.Errorf("%v\n%s", err, out)
	}
}

// A secret is no less one in a rehearsal.
func TestRehearsalsHideSecrets(t *testing.T) {
	w, _ := seeded(t)
	app := newApp()
	var out bytes.Buffer
	app.Writer, app.ErrWriter, app.Reader = &out, &out, strings.NewReader("hunter2\n")
	args := []string{"zhiyun", "config", "set", "db.password", "-", "--secret", "--of", "shop.cart", "--dry-run", "--server", w.Target}
	if err := app.RunContext(t.Context(), flagsFirst(app, args)); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, center.Masked) {
		t.Errorf("it shows:\n%s", text)
	}
}
