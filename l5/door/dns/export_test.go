package dns

import wire "github.com/miekg/dns"

// Reply makes the answer to a query.
func (d *Door) Reply(request *wire.Msg) *wire.Msg { return d.reply(request) }
