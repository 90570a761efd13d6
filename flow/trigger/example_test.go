package trigger_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/flow/trigger"
)

// A document is checked before anything is stored.
func ExampleParse() {
	t, err := trigger.Parse([]byte(`
trigger: nightly
flow: report
schedule: {cron: "30 2 * * *", zone: Asia/Shanghai, missed: once}
`))
	fmt.Println(t.Name, t.Schedule.Cron, t.Schedule.Zone, err)
	_, err = trigger.Parse([]byte(`{trigger: nightly, flow: report, schedule: {cron: "30 2 * *"}}`))
	fmt.Println(err)
	// Output:
	// nightly 30 2 * * * Asia/Shanghai <nil>
	// flow/trigger: invalid: schedule: cron "30 2 * *" has 4 fields; want five: minute, hour, day of the month, month, day of the week
}

// A caller signs the time and the body.
func ExampleSign() {
	body := `{"status": "firing"}`
	request := httptest.NewRequest(http.MethodPost, "/hooks/load-alert", strings.NewReader(body))
	request.Header.Set(trigger.SignatureHeader, trigger.Sign("0123456789abcdef", time.Unix(1795366800, 0), []byte(body)))
	fmt.Println(request.Header.Get(trigger.SignatureHeader))

	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: flow.NewTools()})
	if err != nil {
		fmt.Println(err)
		return
	}
	triggers, err := trigger.New(trigger.Config{Store: trigger.NewMemory(), Engine: engine})
	if err != nil {
		fmt.Println(err)
		return
	}
	answer := httptest.NewRecorder()
	triggers.Handler().ServeHTTP(answer, request)
	fmt.Println(answer.Code, strings.TrimSpace(answer.Body.String())) // Run has not read any triggers
	// Output:
	// t=1795366800,v1=d6ef0c9f473f1eebfcfc9e1f16cf71b615e1884a7f9eab80ae5ec816b05e770c
	// 503 {"error":"the triggers are not read yet; try again"}
}
