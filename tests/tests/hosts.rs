//! Host names and the cluster domain mean the same to all modules, in `translate` as in `run`.

#[cfg(test)]
mod rules {
    use std::collections::BTreeMap;
    use std::path::Path;

    use trimtab::config::Config;
    use trimtab::manifests;
    use trimtab::translate::{self, Output};

    /// A limiter of subset v2 and a router to it, with the host of the DestinationRule.
    fn input(rule: &str, domain: &str) -> String {
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: orders, namespace: shop}}
spec: {{selector: {{app: orders}}, ports: [{{name: tcp-thrift, port: 9090}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: orders-0, namespace: shop, labels: {{app: orders, version: v2}}}}
spec: {{containers: [{{name: orders, image: shop/orders}}]}}
status: {{phase: Running, podIP: 10.1.0.30, conditions: [{{type: Ready, status: 'True'}}]}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: orders, namespace: shop}}
spec: {{host: {rule}, subsets: [{{name: v2, labels: {{version: v2}}}}]}}
---
apiVersion: microservice.slime.io/v1alpha2
kind: SmartLimiter
metadata: {{name: orders, namespace: shop}}
spec: {{sets: {{v2: {{descriptor: [{{condition: 'true', action: {{quota: '30', fill_interval: {{seconds: 1}}}}}}]}}}}}}
---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [orders.shop.svc.{domain}]
  routes: [{{name: all, route: [{{destination: {{host: orders.shop.svc.{domain}, subset: v2}}}}]}}]
"
        )
    }

    async fn translated(text: &str, config: &str) -> Output {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let documents = manifests::parse(Path::new("in.yaml"), text).unwrap();
        let mut config: Config = serde_saphyr::from_str(config).unwrap();
        config.xds.advertise = translate::xds_address();
        let pass = translate::pass(&documents, &BTreeMap::new(), &config).await;
        pass.unwrap().1
    }

    #[tokio::test]
    async fn fault_o13_one_key_sets_the_domain_of_all_modules() {
        let text = input("orders.shop.svc.mesh.local", "mesh.local");
        let output = translated(&text, "mesh: {domain: mesh.local}").await;
        assert_eq!(output.refused, Vec::<String>::new());
        let objects = serde_json::to_string(&output.objects).unwrap();
        assert!(
            objects.contains("orders.shop.v2"),
            "the limiter of the subset: {objects}"
        );
        assert!(objects.contains("orders.shop.svc.mesh.local"), "{objects}");
        assert!(!objects.contains("cluster.local"), "{objects}");
        // A short host stands for the same.
        let short = translated(&input("orders", "mesh.local"), "mesh: {domain: mesh.local}").await;
        assert_eq!(short.objects, output.objects);
    }

    #[test]
    fn fault_o13_a_key_of_one_module_names_the_one_for_all() {
        for section in ["lazyload", "metaprotocol", "limiter"] {
            let text = format!("{section}: {{domain: mesh.local}}");
            let config: Config = serde_saphyr::from_str(&text).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(&format!("{section}.domain")), "{error}");
            assert!(error.contains("mesh: {domain: \"mesh.local\"}"), "{error}");
        }
    }

    #[tokio::test]
    async fn fault_o14_a_host_with_a_dot_is_read_as_istio_reads_it() {
        for written in ["orders.shop", "orders.shop.svc"] {
            let output = translated(&input(written, "cluster.local"), "{}").await;
            let hint = format!(
                "Istio takes the host \"{written}\" of a DestinationRule as it is: write orders.shop.svc.cluster.local"
            );
            for object in ["SmartLimiter shop/orders", "MetaRouter shop/orders"] {
                let told = output
                    .refused
                    .iter()
                    .any(|r| r.contains(object) && r.contains(&hint));
                assert!(told, "{object}: {:?}", output.refused);
            }
            let objects = serde_json::to_string(&output.objects).unwrap();
            assert!(!objects.contains("|v2|"), "{objects}");
        }
        for written in ["orders", "orders.shop.svc.cluster.local"] {
            let output = translated(&input(written, "cluster.local"), "{}").await;
            assert_eq!(output.refused, Vec::<String>::new(), "{written}");
        }
    }
}
