package l5_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

const (
	dashboard = "../docs/grafana/l5.json"
	alerts    = "../docs/prometheus/l5-alerts.yaml"
)

// described returns the names of all metrics of server, agent and client, with those that a histogram makes.
func described(t *testing.T) map[string]bool {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	s := l5test.NewServer(t, func(c *server.Config) { c.Metrics = registry })
	a, _ := l5test.Agent(t, s.Target(), func(c *agent.Config) { c.Metrics = registry })
	l5test.Client(t, a.Target(), func(c *l5.Config) { c.Metrics = registry })
	descs := make(chan *prometheus.Desc)
	go func() {
		registry.Describe(descs)
		close(descs)
	}()
	name, out := regexp.MustCompile(`fqName: "([^"]+)"`), make(map[string]bool)
	for d := range descs {
		if match := name.FindStringSubmatch(d.String()); match != nil {
			out[match[1]] = true
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				out[match[1]+suffix] = true
			}
		}
	}
	return out
}

// charts returns the queries of the dashboard.
func charts(t *testing.T) (expressions []string) {
	t.Helper()
	var board struct {
		Panels []struct {
			Title, Description, Type string
			Targets                  []struct{ Expr string }
		}
	}
	text, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatalf("%s: %v", dashboard, err)
	}
	for _, panel := range board.Panels {
		if panel.Type != "row" && (len(panel.Targets) == 0 || panel.Description == "") {
			t.Errorf("panel %q has no query or no description", panel.Title)
		}
		for _, target := range panel.Targets {
			expressions = append(expressions, target.Expr)
		}
	}
	return expressions
}

var metricName = regexp.MustCompile(`zhiyun_[a-z0-9_]+`)

// Every metric that the dashboard and the alerts name exists.
func TestDashboardAndAlertsNameWhatIsThere(t *testing.T) {
	t.Parallel()
	known := described(t)
	expressions := charts(t)
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	text, err := os.ReadFile(alerts)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatalf("%s: %v", alerts, err)
	}
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			if rule.Annotations["summary"] == "" || rule.Annotations["action"] == "" {
				t.Errorf("alert %s does not say what is wrong and what to do", rule.Alert)
			}
			expressions = append(expressions, rule.Expr)
		}
	}
	if len(expressions) < 30 {
		t.Fatalf("%d expressions: not all were read", len(expressions))
	}
	for _, expression := range expressions {
		names := metricName.FindAllString(expression, -1)
		if len(names) == 0 {
			t.Errorf("no metric in %s", expression)
		}
		for _, name := range names {
			if !known[name] {
				t.Errorf("%s is no metric of server, agent or client: %s", name, expression)
			}
		}
	}
}

// promtool finds the rules well formed, and they fire when they should and not before.
func TestAlertsFire(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("ZHIYUN_REQUIRE") == "1" {
			t.Fatal("promtool is missing; install the Debian package prometheus")
		}
		t.Skip("promtool is not installed; it comes with the Debian package prometheus")
	}
	// The queries of the dashboard are well formed if they would do for recording rules.
	recorded := "groups:\n- name: dashboard\n  rules:\n"
	for i, expression := range charts(t) {
		expression = strings.NewReplacer("$__rate_interval", "5m", "$service", ".*").Replace(expression)
		recorded += fmt.Sprintf("  - {record: 'chart:%d', expr: %q}\n", i, expression)
	}
	queries := filepath.Join(t.TempDir(), "charts.yaml")
	if err := os.WriteFile(queries, []byte(recorded), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "rules", queries}, {"check", "rules", "--lint-fatal", alerts}, {"test", "rules", strings.Replace(alerts, ".yaml", "_test.yaml", 1)}} {
		if output, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, output)
		}
	}
}
