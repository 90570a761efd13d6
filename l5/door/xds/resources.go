package xds

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zhiyun-ops/zhiyun/l5/agent"
)

// The types of resources that the door knows.
const (
	listenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	routeType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	clusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	endpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
)

// pack wraps a message, the same bytes each time for the same content.
func pack(m proto.Message) (*anypb.Any, error) {
	out := new(anypb.Any)
	if err := anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, fmt.Errorf("l5/door/xds: encode %T: %w", m, err)
	}
	return out, nil
}

// ads says that what is named is on the same stream.
func ads() *corepb.ConfigSource {
	return &corepb.ConfigSource{ResourceApiVersion: corepb.ApiVersion_V3, ConfigSourceSpecifier: &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}}}
}

// static returns the resource of a type that a service's id alone decides.
func static(url, service string) (*anypb.Any, error) {
	switch url {
	case listenerType:
		return listener(service)
	case routeType:
		return pack(&routepb.RouteConfiguration{
			Name: service,
			VirtualHosts: []*routepb.VirtualHost{{Name: service, Domains: []string{"*"}, Routes: []*routepb.Route{{
				Match:  &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{Prefix: ""}},
				Action: &routepb.Route_Route{Route: &routepb.RouteAction{ClusterSpecifier: &routepb.RouteAction_Cluster{Cluster: service}}},
			}}}},
		})
	default:
		return pack(&clusterpb.Cluster{
			Name:                 service,
			ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_EDS},
			EdsClusterConfig:     &clusterpb.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: service},
			ConnectTimeout:       durationpb.New(2 * time.Second),
			LbPolicy:             clusterpb.Cluster_ROUND_ROBIN,
			CommonLbConfig: &clusterpb.Cluster_CommonLbConfig{LocalityConfigSpecifier: &clusterpb.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
				LocalityWeightedLbConfig: &clusterpb.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
			}},
			OutlierDetection: &clusterpb.OutlierDetection{
				Interval: durationpb.New(2 * time.Second), BaseEjectionTime: durationpb.New(2 * time.Second), MaxEjectionTime: durationpb.New(time.Minute),
				MaxEjectionPercent:             wrapperspb.UInt32(50),
				EnforcingSuccessRate:           wrapperspb.UInt32(0),
				EnforcingFailurePercentage:     wrapperspb.UInt32(100),
				FailurePercentageThreshold:     wrapperspb.UInt32(50),
				FailurePercentageMinimumHosts:  wrapperspb.UInt32(2),
				FailurePercentageRequestVolume: wrapperspb.UInt32(10),
			},
		})
	}
}

func listener(service string) (*anypb.Any, error) {
	router, err := pack(&routerpb.Router{})
	if err != nil {
		return nil, err
	}
	manager, err := pack(&managerpb.HttpConnectionManager{
		RouteSpecifier: &managerpb.HttpConnectionManager_Rds{Rds: &managerpb.Rds{ConfigSource: ads(), RouteConfigName: service}},
		HttpFilters:    []*managerpb.HttpFilter{{Name: "router", ConfigType: &managerpb.HttpFilter_TypedConfig{TypedConfig: router}}},
	})
	if err != nil {
		return nil, err
	}
	return pack(&listenerpb.Listener{Name: service, ApiListener: &listenerpb.ApiListener{ApiListener: manager}})
}

// locality is a site and a weight.
type locality struct {
	site   string
	weight uint32 // of each endpoint
}

// endpoints returns the instances that take calls.
func endpoints(view agent.View, siteLabel string) (*anypb.Any, error) {
	var heaviest float64
	for _, m := range view.Members {
		heaviest = max(heaviest, m.Weight)
	}
	groups := make(map[locality][]*endpointpb.LbEndpoint)
	for _, m := range view.Members {
		host, port, err := net.SplitHostPort(m.Addr)
		n, perr := strconv.ParseUint(port, 10, 16)
		ip, aerr := netip.ParseAddr(host)
		if m.Weight <= 0 || err != nil || perr != nil || aerr != nil {
			continue
		}
		at := locality{site: cmp.Or(m.Site, m.Labels[siteLabel]), weight: uint32(max(1, math.Round(1000*m.Weight/heaviest)))}
		groups[at] = append(groups[at], &endpointpb.LbEndpoint{
			HealthStatus:        corepb.HealthStatus_HEALTHY,
			LoadBalancingWeight: wrapperspb.UInt32(at.weight),
			HostIdentifier: &endpointpb.LbEndpoint_Endpoint{Endpoint: &endpointpb.Endpoint{Address: &corepb.Address{Address: &corepb.Address_SocketAddress{
				SocketAddress: &corepb.SocketAddress{Address: ip.Unmap().String(), PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: uint32(n)}},
			}}}},
		})
	}
	out := &endpointpb.ClusterLoadAssignment{ClusterName: view.Service}
	for at, members := range groups {
		out.Endpoints = append(out.Endpoints, &endpointpb.LocalityLbEndpoints{
			Locality:            &corepb.Locality{Zone: at.site, SubZone: fmt.Sprintf("weight-%d", at.weight)},
			LoadBalancingWeight: wrapperspb.UInt32(at.weight * uint32(len(members))),
			LbEndpoints:         members,
		})
	}
	slices.SortFunc(out.Endpoints, func(a, b *endpointpb.LocalityLbEndpoints) int {
		return cmp.Or(cmp.Compare(a.Locality.Zone, b.Locality.Zone), cmp.Compare(a.Locality.SubZone, b.Locality.SubZone))
	})
	return pack(out)
}
