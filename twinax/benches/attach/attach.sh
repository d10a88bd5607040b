# What the floor does, as a careful person would write it down: one attach.
set -e
ip link add name "$END" index "$NUMBER" mtu "$MTU" address "$HOST_MAC" group "$GROUP" \
    numtxqueues 1 numrxqueues 1 type veth \
    peer name eth0 netns "$NETNS" mtu "$MTU" address "$MAC" numtxqueues 1 numrxqueues 1
ip link set dev "$END" alias "$ALIAS" addrgenmode none master "$BRIDGE" up
ip link set dev "$END" type bridge_slave hairpin on learning off flood off proxy_arp_wifi on \
    mcast_flood on bcast_flood on isolated off
ip neigh replace "$ADDR" lladdr "$MAC" dev "$BRIDGE" nud permanent
bridge fdb replace "$MAC" dev "$END" master static
ip -n "$NETNS" link set lo up
ip -n "$NETNS" link set eth0 addrgenmode none up
ip -n "$NETNS" addr add "$ADDR/$PREFIX" dev eth0
ip -n "$NETNS" route add default via "$GATEWAY" dev eth0
ip -n "$NETNS" neigh replace "$GATEWAY" lladdr "$GATEWAY_MAC" dev eth0 nud permanent
nft -f - <<END
add element inet twinax any4 { tcp . $HOST_PORT comment "$COMMENT" : $ADDR . $PORT }
add element inet twinax open4 { $ADDR . tcp . $PORT comment "$COMMENT" }
add element bridge twinax port-mac { "$END" . $MAC comment "$COMMENT" }
add element bridge twinax port-source4 { "$END" . $ADDR comment "$COMMENT" }
END
