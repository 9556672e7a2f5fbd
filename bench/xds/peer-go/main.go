// The peer of the xDS benchmark: go-control-plane with its LinearCache or its SnapshotCache, driven over stdin like
// Trimtab's own server in the same benchmark.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// store is one of the two caches.
type store interface {
	cache() cache.Cache
	fill(count, size int) error
	set(index int, serial uint64, size int) error
}

func name(index int) string { return fmt.Sprintf("r-%08d", index) }

func makeRoutes(index int, serial uint64, size int) *route.RouteConfiguration {
	label := fmt.Sprintf("%012d-", serial)
	if len(label) < size {
		label += strings.Repeat("x", size-len(label))
	}
	return &route.RouteConfiguration{
		Name:         name(index),
		VirtualHosts: []*route.VirtualHost{{Name: label, Domains: []string{"*"}}},
	}
}

type linear struct{ inner *cache.LinearCache }

func (l linear) cache() cache.Cache { return l.inner }

func (l linear) fill(count, size int) error {
	all := make(map[string]types.Resource, count)
	for i := range count {
		all[name(i)] = makeRoutes(i, 0, size)
	}
	l.inner.SetResources(all)
	return nil
}

func (l linear) set(index int, serial uint64, size int) error {
	return l.inner.UpdateResource(name(index), makeRoutes(index, serial, size))
}

// everyone puts all nodes into one group, as all of them get the same resources.
type everyone struct{}

func (everyone) ID(*core.Node) string { return "everyone" }

type snapshots struct {
	inner   cache.SnapshotCache
	all     []types.Resource
	version uint64
}

func (s *snapshots) cache() cache.Cache { return s.inner }

func (s *snapshots) publish() error {
	s.version++
	snapshot, err := cache.NewSnapshot(strconv.FormatUint(s.version, 10), map[resource.Type][]types.Resource{
		resource.RouteType: s.all,
	})
	if err != nil {
		return err
	}
	return s.inner.SetSnapshot(context.Background(), "everyone", snapshot)
}

func (s *snapshots) fill(count, size int) error {
	s.all = make([]types.Resource, count)
	for i := range count {
		s.all[i] = makeRoutes(i, 0, size)
	}
	return s.publish()
}

func (s *snapshots) set(index int, serial uint64, size int) error {
	all := make([]types.Resource, len(s.all))
	copy(all, s.all)
	all[index] = makeRoutes(index, serial, size)
	s.all = all
	return s.publish()
}

func run() error {
	kind := flag.String("cache", "linear", "linear or snapshot")
	flag.Parse()
	var resources store
	switch *kind {
	case "linear":
		resources = linear{cache.NewLinearCache(resource.RouteType)}
	case "snapshot":
		resources = &snapshots{inner: cache.NewSnapshotCache(false, everyone{}, nil)}
	default:
		return fmt.Errorf("unknown cache %q; use linear or snapshot", *kind)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	// The options that its own documents recommend, and room for requests that list all versions.
	rpc := grpc.NewServer(
		grpc.MaxConcurrentStreams(1_000_000),
		grpc.MaxRecvMsgSize(64<<20),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	)
	discovery.RegisterAggregatedDiscoveryServiceServer(rpc, server.NewServer(context.Background(), resources.cache(), nil))
	go func() {
		if err := rpc.Serve(listener); err != nil {
			log.Fatal(err)
		}
	}()
	fmt.Printf("ready %d\n", listener.Addr().(*net.TCPAddr).Port)
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		if err := obey(resources, commands.Text()); err != nil {
			return err
		}
		fmt.Println("ok")
	}
	return commands.Err()
}

func obey(resources store, line string) error {
	var index, count, size int
	var serial uint64
	if n, _ := fmt.Sscanf(line, "fill %d %d", &count, &size); n == 2 {
		return resources.fill(count, size)
	}
	if n, _ := fmt.Sscanf(line, "set %d %d %d", &index, &serial, &size); n == 3 {
		return resources.set(index, serial, size)
	}
	return fmt.Errorf("unknown command %q", line)
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
