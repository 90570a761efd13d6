package agent

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// Renew implements the wire protocol. A device's programs have a stream to their agent; leases without one are the server's.
func (h *handler) Renew(context.Context, *connect.Request[l5pb.RenewRequest]) (*connect.Response[l5pb.RenewResponse], error) {
	return nil, connect.NewError(connect.CodeUnimplemented, errors.New("an agent keeps leases by streams; renew with the server"))
}
