//! The port-forward of commands, through a real API server. There is no kubelet: a stand-in takes the WebSocket that the API
//! server passes on, as a kubelet does.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite,
    AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use trimtab::reach;
use trimtab::version::Version;
use trimtab_cluster::{Cluster, Namespace};

use crate::fixture::{cluster, operator};

/// What the handshake of WebSocket appends to the key.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

/// A frame: what it is, and its bytes without the mask.
async fn frame(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    from.read_exact(&mut head).await?;
    let length = match head[1] & 127 {
        126 => usize::from(from.read_u16().await?),
        127 => usize::try_from(from.read_u64().await?).unwrap(),
        short => usize::from(short),
    };
    let mut mask = [0; 4];
    if head[1] & 128 != 0 {
        from.read_exact(&mut mask).await?;
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    for (byte, mask) in bytes.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
    Ok((head[0] & 15, bytes))
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![128 | BINARY, 126];
    out.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend(bytes);
    out
}

/// Takes the request for a WebSocket; the port of the pod that it asks for.
async fn accepted(stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin)) -> std::io::Result<u16> {
    let (mut request, mut key) = (String::new(), String::new());
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if line.trim().is_empty() {
            break;
        }
        if request.is_empty() {
            request.clone_from(&line);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("sec-websocket-key")
        {
            value.trim().clone_into(&mut key);
        }
    }
    let (_, port) = request.split_once("port=").unwrap();
    let port: u16 = port.split([' ', '&']).next().unwrap().parse().unwrap();
    let digest = ring::digest::digest(
        &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{MAGIC}").as_bytes(),
    );
    let accept = BASE64_STANDARD.encode(digest);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\
         Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    Ok(port)
}

/// Carries one connection to `target`, whatever port of the pod is asked for.
async fn carry(stream: TcpStream, tls: TlsAcceptor, target: SocketAddr) -> std::io::Result<u16> {
    let mut stream = BufReader::new(tls.accept(stream).await?);
    let port = accepted(&mut stream).await?;
    // Each of the two channels, data and errors, begins with the port.
    for channel in [0, 1] {
        let [low, high] = port.to_le_bytes();
        stream.write_all(&framed(&[channel, low, high])).await?;
    }
    stream.flush().await?;
    let (mut inbound, mut outbound) = tokio::io::split(stream);
    let (mut from, mut to) = TcpStream::connect(target).await?.into_split();
    let back = async {
        let mut bytes = vec![0; 16 << 10];
        bytes[0] = 0;
        loop {
            let read = from.read(&mut bytes[1..]).await?;
            if read == 0 {
                return Ok::<(), std::io::Error>(());
            }
            outbound.write_all(&framed(&bytes[..=read])).await?;
            outbound.flush().await?;
        }
    };
    let forth = async {
        loop {
            match frame(&mut inbound).await? {
                (BINARY, bytes) => to.write_all(&bytes[1..]).await?,
                (CLOSE, _) => return Ok::<(), std::io::Error>(()),
                _ => {}
            }
        }
    };
    tokio::select! {
        done = back => done?,
        done = forth => done?,
    }
    Ok(port)
}

/// Starts the stand-in; its port.
async fn kubelet(target: SocketAddr) -> u16 {
    let made = rcgen::generate_simple_self_signed(["kubelet".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let carried = carry(stream, tls, target).await;
                println!("kubelet: {carried:?}");
            });
        }
    });
    port
}

/// A node whose kubelet is the stand-in; its name.
async fn node(cluster: &Cluster, target: SocketAddr) -> String {
    let node = format!("kubelet-{}", std::process::id());
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
    cluster
        .kubectl(&["apply", "-f", "-"], &object.to_string())
        .await
        .unwrap();
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet(target).await}}}});
    let status = status.to_string();
    let patch = [
        "patch",
        "node",
        &node,
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ];
    cluster.kubectl(&patch, "").await.unwrap();
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reaches_the_operator_by_a_port_forward_of_its_own() {
    let target = operator().await;
    let cluster = cluster().await;
    let namespace = Namespace::create(cluster, "forward").await.unwrap();
    let kubelet = node(cluster, target).await;
    let labels = json!({"app": "trimtab"});
    let container = json!({"name": "trimtab", "image": "trimtab", "ports": [{"name": "http", "containerPort": 8080}]});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "trimtab", "labels": {"app.kubernetes.io/part-of": "trimtab"}},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [container]}}}});
    namespace.apply(&deployment.to_string()).await.unwrap();
    let client = namespace.client().clone();
    let nobody = reach::in_cluster(client.clone(), Some(namespace.name())).await;
    assert!(
        nobody
            .unwrap_err()
            .to_string()
            .contains("has no pod that runs")
    );
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trimtab-0", "labels": labels},
        "spec": {"nodeName": kubelet, "containers": [container]}});
    namespace.apply(&pod.to_string()).await.unwrap();
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}).to_string();
    let patch = [
        "patch",
        "pod",
        "trimtab-0",
        "--subresource=status",
        "--type=merge",
        "-p",
        &ready,
    ];
    namespace.kubectl(&patch, "").await.unwrap();

    let found = reach::in_cluster(client, Some(namespace.name()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.place(), format!("Pod {}/trimtab-0", namespace.name()));
    for _ in 0..3 {
        let version: Version = found.get(&["version"]).await.unwrap();
        assert_eq!(version, Version::own());
    }
    // A long answer arrives whole.
    let metrics = found
        .ask(&["metrics"], &std::collections::BTreeMap::new())
        .await
        .unwrap()
        .unwrap();
    let text = metrics.text().await.unwrap();
    assert!(
        text.len() > 1000 && text.ends_with("# EOF\n"),
        "{} bytes",
        text.len()
    );
}
